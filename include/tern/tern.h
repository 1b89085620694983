/* Tern: ternary (1.58-bit) neural networks. This header includes the others:
 *
 *   status.h   status codes and error details
 *   quant.h    quantizers: weights to trits, activations to int8
 *   pack.h     packings: t2, t5 and the blocks of GGUF and Hugging Face
 *   matrix.h   ternary matrices and their products
 *   device.h   GPUs, and products of ternary matrices on them
 *   data.h     data sets of images and texts, and loaders that make batches of them
 *   data.h     data sets and loaders
 *   graph.h    networks, described once
 *   config.h   settings of a training run, and presets
 *   train.h    training
 *   model.h    models: evaluate, export, run
 *   machine.h  what this machine can do: processors, measured peaks
 */
#ifndef TERN_TERN_H
#define TERN_TERN_H

#include "tern/config.h"
#include "tern/data.h"
#include "tern/device.h"
#include "tern/graph.h"
#include "tern/machine.h"
#include "tern/matrix.h"
#include "tern/model.h"
#include "tern/pack.h"
#include "tern/quant.h"
#include "tern/status.h"
#include "tern/train.h"

#ifdef __cplusplus
extern "C" {
#endif

/* "0.1.0": the version of the library that is running. */
TERN_API const char *tern_version(void);

#ifdef __cplusplus
}
#endif
#endif
