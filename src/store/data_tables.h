/* /data and /data_lengths of a run file: what the stage reads, and how long its rows are. */
#ifndef PX_STORE_DATA_TABLES_H
#define PX_STORE_DATA_TABLES_H

#include "frame.h"

/* data: one row a file. lengths: one row for each bin of a file's histogram that has rows. */
px_status px_data_tables_init(px_frame *data, px_frame *lengths, const px_run_header *header);

#endif
