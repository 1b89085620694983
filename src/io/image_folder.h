/* A folder with one folder of images per class. */
#ifndef TERN_IO_IMAGE_FOLDER_H
#define TERN_IO_IMAGE_FOLDER_H

#include "io/dataset.h"

/* Fills images, labels, names and sizes of a zeroed data set; what it holds after a failure is freed with it. */
tern_status tern_image_folder_load(tern_dataset *dataset, const tern_dataset_desc *desc, tern_error *err);

#endif
