/* What several keys make wrong together. */
#include "stage.h"

#include <stdio.h>
#include <string.h>

void px_stage_check(px_stage *stage, px_problems *problems) {
    (void)stage;
    (void)problems;
}
