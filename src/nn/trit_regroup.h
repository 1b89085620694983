/* Other scale groups for a trained layer of whole numbers: what the seed's family calls tscale_to.
 *
 * Trits, counters and momentum stay; exponents become those of tern_regroup_exponents: the rounded log2 of the mean
 * scale over the kept weights of each new group. Where every new group lies within an old one (a tensor to rows, a
 * row to groups, T8 to T4) no weight changes. Elsewhere a new group's weights change by at most the ratio of the
 * largest scale that it takes in to the smallest, and its mean scale by the rounding of an exponent, at most sqrt 2.
 *
 * Sums of slow exponents begin anew. Rates of groups are taken over from the old group of the first column, and
 * follow their gradients from there. Thresholds decide trits: they must be equal within each new group.
 *
 * Refused, and nothing changed: nodes without whole-number weights, seed-corr (whose scales are no powers of two),
 * groups that the columns do not take, thresholds that differ, and rates of groups where one scale a tensor is
 * left. */
#ifndef TERN_NN_TRIT_REGROUP_H
#define TERN_NN_TRIT_REGROUP_H

#include "nn/nodes.h"

/* group: columns that share an exponent; 0: as granularity says. Of a placed graph of which no plan is alive; a node
 * that shares its parameters changes with all that do. TERN_E_UNSUPPORTED where it cannot be done. */
tern_status tern_trit_regroup(tern_graph *graph, size_t node, tern_granularity granularity, size_t group,
                              tern_error *err);

#endif
