#ifndef TERN_CLI_BENCH_H
#define TERN_CLI_BENCH_H

int bench_kernels(int argc, char **argv);
int bench_packing(int argc, char **argv);
int bench_tune(int argc, char **argv);
int bench_layer(int argc, char **argv);
int bench_model(int argc, char **argv);

#endif
