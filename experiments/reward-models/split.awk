# Lines of JSON, every tenth to -v heldout=FILE, the rest to -v train=FILE; lines longer than -v limit=BYTES are
# left out.
limit == 0 || length($0) <= limit { print > (count++ % 10 == 9 ? heldout : train) }
