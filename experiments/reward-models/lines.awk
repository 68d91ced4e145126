# A JSON array written one field a line (as json.dump with an indent does) -> one object a line.
/^ *\{ *$/ { object = ""; inside = 1; next }
/^ *\},? *$/ { if (inside) print "{" object "}"; inside = 0; next }
inside { sub(/^ */, ""); object = object $0 }
