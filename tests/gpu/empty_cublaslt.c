/* A library under cuBLASLt's name that has nothing of it, for fallback_test: a machine without cuBLASLt, wherever the
 * loader would find one. */
extern int tern_nothing_here;
int tern_nothing_here;
