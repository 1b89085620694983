/* Rates over a run. `at` is the share of the run that is done, 0 to 1. */
#ifndef TERN_TRAIN_SCHEDULE_H
#define TERN_TRAIN_SCHEDULE_H

#include "model/configuration.h"

/* Factor of the peak rates. constant: 1; linear and cosine: from 1 to lr_final; bitnet: linear from 1 to 2/3 at half
 * time, then linear from 2/3 to lr_final (Ma et al., "The Era of 1-bit LLMs: training tips", 2024). In the warm-up, a
 * share of the run, it rises from 0 instead. */
double tern_schedule_rate(const tern_config *config, double at);

/* Factor of the weight decay: 1; bitnet: 0 from half time on. */
double tern_schedule_decay(const tern_config *config, double at);

/* How far weights have turned ternary: 0 before lambda_begin, rising linearly to 1 at lambda_end. */
double tern_schedule_lambda(const tern_config *config, double at);

#endif
