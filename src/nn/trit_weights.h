/* Whole-number weights of the trit_ operations: which integers persist, how they start, and one step of their rule.
 *
 * Parameters of a node, W [rows][cols], by rule (quant/trit_rules.h has the mathematics):
 *   r1         counter int8 [rows][cols]
 *   r2         counter, momentum int8 [rows][cols]
 *   vote       trits, t5 by rows; counter int8 [rows][cols]
 *   seed-corr  trits; correlation int64 [scales], held to 2^62 between steps; a pass moves it by no more than the
 *              number of weights, below 2^33; steps int32 [1]: the number of updates, which stops counting at its largest
 * and of every rule
 *   exponent           int8 [scales]: the scale is 2^exponent; one a tensor, a row or a group of columns
 *   gradient_exponent  int8 [1]: rounded log2 of the last gradients' root mean square, TERN_NO_GRADIENT_EXP at first.
 *                      A step is normalised by that of the step before: gradients stream past once.
 *   group_rate         int8 [scales], with group_rates: r1 and r2, of a scale a row or group   (quant/trit_groups.h)
 *   group_threshold    uint8 [scales], with group_thresholds: r1 and r2
 *   exponent_sum       int64 [scales], with slow_exponents: the gradient of the exponent, summed since its last step, in
 *                      units of 2^-8 and no more than 2^18 a weight: a pass moves it by less than 2^51, and between
 *                      steps it is held to 2^62 */
#ifndef TERN_NN_TRIT_WEIGHTS_H
#define TERN_NN_TRIT_WEIGHTS_H

#include "nn/ternary_weights.h"

/* What was read from a file: trits that are none, exponents out of range. Other nodes are good. */
tern_status tern_trit_check(const tern_graph *graph, size_t node, tern_error *err);

/* For shape rules: checks update, group and granularity and adds the parameters. sigma: the deviation of the weights
 * that the first trits and exponents stand for. */
tern_status tern_trit_add_params(tern_graph *graph, tern_node *node, size_t rows, size_t cols, float sigma,
                                 tern_error *err);
/* The operation's `initialise`. */
void tern_trit_initialise(tern_graph *graph, size_t node, uint64_t seed);

/* For shape rules: a granularity that there is, and groups that rows of so many columns can have. */
tern_status tern_check_scales(const tern_node *node, size_t cols, tern_error *err);

/* Scales of W: 1, rows, or rows * groups a row. */
size_t tern_trit_scale_count(const tern_node *node, size_t rows, size_t cols);

tern_status tern_trit_prepare(tern_ternary_weights *w, tern_plan *plan, size_t node, tern_error *err);
tern_status tern_trit_refresh(tern_ternary_weights *w, tern_plan *plan, size_t node, tern_error *err);

/* One update of rows first .. first + rows with their gradients g [rows][cols], all finite, which group rates
 * scale. */
void tern_trit_update(tern_ternary_weights *w, tern_plan *plan, size_t node, size_t first, size_t rows, float *g);
/* The same of one row in the calling thread, with a gradient exponent and a number of the step of its own. room:
 * [cols]. Returns how many trits changed. */
size_t tern_trit_update_row(const tern_ternary_weights *w, const tern_plan *plan, size_t node, size_t row, float *g,
                            int gradient_exp, uint64_t number, int8_t *room);
/* After the updates of all rows: what is once a step. squares: of all the gradients. */
void tern_trit_finish(tern_ternary_weights *w, tern_plan *plan, size_t node, double squares);

/* The integers of a node of a placed graph, and their sizes; no more of *w is filled. */
void tern_trit_view(tern_ternary_weights *w, const tern_graph *graph, size_t node);
/* The trits that the integers of rows first .. first + rows stand for now. */
void tern_trit_stored_rows(const tern_ternary_weights *w, int8_t *trits, size_t first, size_t rows);
/* The trits of rows first .. first + rows in this pass. */
void tern_trit_rows(const tern_ternary_weights *w, int8_t *trits, size_t first, size_t rows);

#endif
