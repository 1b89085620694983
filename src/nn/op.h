/* An operation: its shape rule, and what it does in a plan. Each op is one file, registered in op_list.c. */
#ifndef TERN_NN_OP_H
#define TERN_NN_OP_H

#include "nn/nodes.h"
#include "nn/plan.h"

typedef struct tern_op {
    const char *name;
    int inputs;

    /* Checks inputs and attributes, fills in defaults, sets the shape and adds parameters. */
    tern_status (*shape)(tern_graph *graph, tern_node *node, tern_error *err);

    /* Draws the first values of whole-number parameters; those of floats are drawn from their means and deviations.
     * May be NULL. */
    void (*initialise)(tern_graph *graph, size_t node, uint64_t seed);

    /* 1: the backward pass reads the input (output) again, so a training plan keeps it. */
    int needs_input, needs_output;
    /* 1: the value is the input under another shape; nothing is computed. */
    int alias;

    /* Takes what it keeps between calls from the plan, and says how much scratch it wants. May be NULL. */
    tern_status (*prepare)(tern_plan *plan, size_t node, tern_error *err);
    /* After the parameters have changed: quantizes and packs. May be NULL. */
    tern_status (*refresh)(tern_plan *plan, size_t node, tern_error *err);
    void (*forward)(tern_plan *plan, size_t node);
    /* Adds to the gradients of the parameters, sets (or adds to) that of the inputs. NULL: no gradient passes. */
    void (*backward)(tern_plan *plan, size_t node);
    /* Frees what prepare made outside the plan's memory. May be NULL. */
    void (*release)(tern_plan *plan, size_t node);
} tern_op;

const tern_op *tern_op_find(const char *name);

/* The i-th op's name, NULL past the end. */
const char *tern_op_name(size_t i);

#endif
