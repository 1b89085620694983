/* Files of float-free models that somebody has changed: integers of another shape or type, out of their range, codes
 * that stand for no trits, attributes that cannot be. Each is refused with a message that names it. The models here
 * are seeds of tests/fuzz/fuzz_model.c too. */
#include "model/model_file.h"
#include "model/networks.h"
#include "nn/nodes.h"
#include "tern/model.h"
#include "testing.h"

static tern_error err;
enum { TOKENS = 4, VOCABULARY = 7 };

typedef struct file {
    char *bytes;
    size_t size;
} file;

/* Every rule has a layer; tables, groups and an owner of another's parameters. */
static tern_graph *make_graph(void) {
    tern_graph *g;
    OK(tern_graph_create(&g, &err));
    tern_value x = tern_graph_input_tokens(g, TOKENS, VOCABULARY);
    x = tern_graph_add(g, "trit_embedding", "table", x, &(tern_attrs){.width = 8, .update = TERN_UPDATE_VOTE});
    x = tern_graph_add(g, "trit_rmsnorm", "norm", x, NULL);
    x = tern_graph_add(g, "trit_linear", "r2", x,
                       &(tern_attrs){.outputs = 8, .update = TERN_UPDATE_R2, .group = 4, .slow_exponents = 1});
    x = tern_graph_add(g, "trit_linear", "corr", x,
                       &(tern_attrs){.outputs = 8, .update = TERN_UPDATE_SEED_CORR, .granularity = TERN_PER_ROW});
    x = tern_graph_add(g, "trit_linear", "again", x,
                       &(tern_attrs){.outputs = 8, .update = TERN_UPDATE_SEED_CORR, .granularity = 1, .same_as = 4});
    tern_graph_add(g, "trit_linear", "r1", x,
                   &(tern_attrs){.outputs = VOCABULARY, .update = TERN_UPDATE_R1, .bias = 1});
    OK(tern_graph_check(g, &err));
    OK(tern_graph_place(g, &err));
    tern_graph_initialise(g, 3, 0);
    return g;
}

static file to_bytes(const tern_safetensors_writer *writer) {
    file f;
    void *bytes;
    OK(tern_safetensors_writer_to_memory(writer, &bytes, &f.size, &err));
    f.bytes = bytes;
    return f;
}

static file make_checkpoint(void) {
    tern_graph *g = make_graph();
    tern_config *config;
    tern_safetensors_writer *writer;
    tern_model_input input = {.data = TERN_DATA_TEXT, .vocabulary = VOCABULARY};
    OK(tern_config_create(&config, "charlm-trit", &err));
    OK(tern_safetensors_writer_create(&writer, &err));
    OK(tern_model_add(writer, g, &input, config, 0, &err));
    file f = to_bytes(writer);
    tern_safetensors_writer_free(&writer);
    tern_config_free(&config);
    tern_graph_free(&g);
    return f;
}

static file make_deployed(tern_packing packing) {
    temporary_folder folder;
    tern_model *model;
    file checkpoint = make_checkpoint(), deployed;
    folder_create(&folder);
    folder_put(&folder, "checkpoint", checkpoint.bytes, checkpoint.size);
    OK(tern_model_open(&model, folder_file(&folder, "checkpoint"), NULL, &err));
    OK(tern_model_export(model, folder_file(&folder, "deployed"), &(tern_export_options){.packing = packing}, &err));
    deployed.bytes = file_text(folder_file(&folder, "deployed"), &deployed.size);
    tern_model_close(&model);
    folder_remove(&folder);
    free(checkpoint.bytes);
    return deployed;
}

/* ---- changes */

/* In `tensor` (NULL: none) element `at` becomes `value`; or it is left out, or has another type or shape. In the
 * description `from` (NULL: nothing) becomes `to`. */
typedef struct change {
    const char *tensor;
    size_t at;
    int64_t value;
    const char *from, *to;
    const char *message;
    int leave_out;
    tern_safetensors_dtype dtype; /* of another shape; rank 0: of the same */
    size_t rank, shape[2];
} change;

static char *replaced(const char *text, const char *from, const char *to) {
    const char *at = strstr(text, from);
    if (!at) fail_msg("there is no %s in %s", from, text);
    char *out = malloc(strlen(text) + strlen(to) + 1);
    assert_non_null(out);
    sprintf(out, "%.*s%s%s", (int)(at - text), text, to, at + strlen(from));
    return out;
}

static void add_changed(tern_safetensors_writer *writer, const tern_safetensors_entry *e, const change *c,
                        char *room) {
    size_t size = tern_safetensors_dtype_bits(e->dtype) / 8;
    assert_true(e->bytes <= 4096);
    memcpy(room, e->data, e->bytes);
    if (c->leave_out) return;
    if (!c->rank) assert_true((c->at + 1) * size <= e->bytes);
    if (!c->rank) memcpy(room + c->at * size, &c->value, size); /* its lowest bytes */
    OK(tern_safetensors_writer_add(writer, e->name, c->rank ? c->dtype : e->dtype, c->rank ? c->rank : e->rank,
                                   c->rank ? c->shape : e->shape, room, &err));
}

static file changed(const file *f, const change *c) {
    static char room[4096];
    tern_safetensors *read;
    tern_safetensors_writer *writer;
    OK(tern_safetensors_open_memory(&read, f->bytes, f->size, "m", TERN_ST_CHECKSUM_REQUIRED, &err));
    OK(tern_safetensors_writer_create(&writer, &err));
    int met = !c->tensor;
    for (size_t i = 0; i < tern_safetensors_count(read); i++) {
        const tern_safetensors_entry *e = tern_safetensors_at(read, i);
        int it = c->tensor && !strcmp(e->name, c->tensor);
        met |= it;
        if (it)
            add_changed(writer, e, c, room);
        else
            OK(tern_safetensors_writer_add(writer, e->name, e->dtype, e->rank, e->shape, e->data, &err));
    }
    if (!met) fail_msg("there is no tensor %s", c->tensor);
    const char *text = tern_safetensors_metadata(read, "tern.model");
    char *description = c->from ? replaced(text, c->from, c->to) : strdup(text);
    OK(tern_safetensors_writer_metadata(writer, "tern.model", description, &err));
    file out = to_bytes(writer);
    tern_safetensors_writer_free(&writer);
    tern_safetensors_close(&read);
    free(description);
    return out;
}

/* Opened as a model is: read, planned and made ready. */
static tern_status open_file(const file *f) {
    temporary_folder folder;
    tern_model *model = NULL;
    folder_create(&folder);
    folder_put(&folder, "model", f->bytes, f->size);
    tern_status status = tern_model_open(&model, folder_file(&folder, "model"), NULL, &err);
    assert_true(status ? !model : model != NULL);
    tern_model_close(&model);
    folder_remove(&folder);
    return status;
}

static void check_changes(const file *f, const change *changes, size_t count) {
    OK(open_file(f));
    for (size_t i = 0; i < count; i++) {
        err = (tern_error){0};
        file other = changed(f, &changes[i]);
        tern_status status = open_file(&other);
        free(other.bytes);
        if (!changes[i].message ? status != TERN_OK : !status || !strstr(err.message, changes[i].message))
            fail_msg("change %zu: %s: %s; should say '%s'", i, tern_status_text(status), err.message,
                     changes[i].message ? changes[i].message : "nothing");
    }
}

#define BEYOND (((int64_t)1 << 62) + 1)

static const change of_checkpoints[] = {
    /* in range, at its ends */
    {.tensor = "r1.counter", .at = 3, .value = -127},
    {.tensor = "r1.exponent", .value = 100},
    {.tensor = "r1.gradient_exponent", .value = -128},
    {.tensor = "corr.steps", .value = INT32_MAX},
    {.tensor = "corr.correlation", .at = 7, .value = BEYOND - 1},
    {.tensor = "r2.exponent_sum", .value = -(BEYOND - 1)},
    {.tensor = "norm.gain", .at = 2, .value = INT16_MIN},
    /* out of it */
    {.tensor = "r1.counter", .at = 3, .value = -128, .message = "r1.counter[3] is -128"},
    {.tensor = "table.counter", .at = 55, .value = -128, .message = "table.counter[55] is -128"},
    {.tensor = "r2.momentum", .at = 9, .value = -128, .message = "r2.momentum[9] is -128"},
    {.tensor = "r1.exponent", .value = 101, .message = "r1.exponent[0] is 101"},
    {.tensor = "r2.exponent", .at = 15, .value = -101, .message = "r2.exponent[15] is -101"},
    {.tensor = "r1.gradient_exponent", .value = 101, .message = "r1.gradient_exponent[0] is 101"},
    {.tensor = "r1.gradient_exponent", .value = -127, .message = "r1.gradient_exponent[0] is -127"},
    {.tensor = "corr.steps", .value = -1, .message = "corr.steps[0] is negative"},
    {.tensor = "table.row_steps", .at = 6, .value = INT32_MIN, .message = "table.row_steps[6] is negative"},
    {.tensor = "corr.correlation", .at = 7, .value = BEYOND, .message = "corr.correlation[7] is beyond"},
    {.tensor = "r2.exponent_sum", .at = 1, .value = -BEYOND, .message = "r2.exponent_sum[1] is beyond"},
    {.tensor = "corr.trits", .at = 2, .value = 243, .message = "243"},
    {.tensor = "table.trits", .at = 0, .value = 255, .message = "255"},
    /* missing, of another type or shape */
    {.tensor = "r1.counter", .leave_out = 1, .message = "no tensor r1.counter"},
    {.tensor = "table.row_steps", .leave_out = 1, .message = "no tensor table.row_steps"},
    {.tensor = "r1.counter", .dtype = TERN_ST_U8, .rank = 2, .shape = {7, 8}, .message = "r1.counter is U8"},
    {.tensor = "r1.counter", .dtype = TERN_ST_I8, .rank = 2, .shape = {8, 7}, .message = "r1.counter has another"},
    {.tensor = "r1.counter", .dtype = TERN_ST_I8, .rank = 1, .shape = {56}, .message = "r1.counter has another"},
    {.tensor = "r1.counter", .dtype = TERN_ST_F32, .rank = 2, .shape = {7, 8}, .message = "r1.counter is F32"},
    {.tensor = "norm.gain", .dtype = TERN_ST_F32, .rank = 1, .shape = {8}, .message = "norm.gain is F32"},
    {.tensor = "corr.trits", .dtype = TERN_ST_U8, .rank = 2, .shape = {8, 3}, .message = "corr.trits is U8 of 24"},
    {.tensor = "corr.correlation", .dtype = TERN_ST_I32, .rank = 1, .shape = {8}, .message = "is I32"},
    /* attributes */
    {.from = "\"group\":4", .to = "\"group\":8", .message = "r2.exponent"},
    {.from = "\"group\":4", .to = "\"group\":5", .message = "r2: groups of 5 columns"},
    {.from = "\"group\":4", .to = "\"group\":1", .message = "r2: groups of 1 columns"},
    {.from = "\"group\":4", .to = "\"group\":1099511627776", .message = "r2: groups of 1099511627776 columns"},
    {.from = "\"group\":4", .to = "\"group\":-4", .message = "group is no size"},
    {.from = "\"update\":1", .to = "\"update\":99", .message = "r1: update 99"},
    {.from = "\"update\":1", .to = "\"update\":2", .message = "r1.momentum"},
    {.from = "\"same_as\":4", .to = "\"same_as\":6", .message = "again: same_as 6"},
    {.from = "\"same_as\":4", .to = "\"same_as\":5", .message = "again: same_as 5"},
    {.from = "\"same_as\":4", .to = "\"same_as\":1", .message = "again: same_as 1"},
    {.from = "\"same_as\":4", .to = "\"same_as\":3", .message = "again cannot share the parameters of r2"},
    {.from = "\"name\":\"norm\"", .to = "\"name\":\"norm\",\"slow_exponents\":1"},
    {.from = "\"op\":\"trit_rmsnorm\"", .to = "\"op\":\"rmsnorm\",\"slow_exponents\":1", .message = "norm: slow_exp"},
    {.from = "\"op\":\"trit_rmsnorm\"", .to = "\"op\":\"rmsnorm\",\"group\":4", .message = "norm: group"},
};

static const change of_deployed[] = {
    {.tensor = "r2.exponent", .at = 15, .value = -9},
    {.tensor = "r2.exponent", .leave_out = 1, .message = "r2: its packed weights, scales or packing"},
    {.tensor = "table.scale", .leave_out = 1, .message = "table: its packed weights, scales or packing"},
    {.tensor = "table.weight", .leave_out = 1, .message = "table: its packed weights, scales or packing"},
    {.tensor = "r2.exponent", .dtype = TERN_ST_I8, .rank = 1, .shape = {15}, .message = "r2.exponent: 16"},
    {.tensor = "r2.exponent", .dtype = TERN_ST_U8, .rank = 1, .shape = {16}, .message = "r2.exponent: 16"},
    {.tensor = "table.scale", .dtype = TERN_ST_F32, .rank = 1, .shape = {7}, .message = "table.scale: 1"},
    {.tensor = "table.weight", .dtype = TERN_ST_U8, .rank = 1, .shape = {11}, .message = "table.weight is U8 of 11"},
    {.tensor = "table.weight", .at = 1, .value = 250, .message = "250"},
    {.tensor = "r2.weight", .at = 1, .value = 243, .message = "243"},
    {.from = "\"group\":4", .to = "\"group\":8", .message = "r2.exponent: 8"},
    {.from = "\"group\":4", .to = "\"group\":7", .message = "r2: groups of 7 columns"},
    {.from = "\"name\":\"table\"", .to = "\"name\":\"table\",\"group\":5", .message = "table: groups of 5 columns"},
    {.from = "\"name\":\"table\"",
     .to = "\"name\":\"table\",\"group\":4",
     .message = "table: its packed weights, sc"},
    {.from = "\"name\":\"table\"", .to = "\"name\":\"table\",\"granularity\":9", .message = "table: granularity 9"},
    {.from = "\"op\":\"packed_embedding\"", .to = "\"op\":\"packed_linear\"", .message = "table: only an embedding"},
    {.from = "\"op\":\"packed_embedding\"", .to = "\"op\":\"trit_embedding\"", .message = "no tensor table"},
};

static void test_checkpoints(void **state) {
    (void)state;
    file f = make_checkpoint();
    check_changes(&f, of_checkpoints, sizeof of_checkpoints / sizeof *of_checkpoints);
    free(f.bytes);
}

static void test_deployed(void **state) {
    (void)state;
    file f = make_deployed(TERN_PACK_T5);
    check_changes(&f, of_deployed, sizeof of_deployed / sizeof *of_deployed);
    free(f.bytes);
    f = make_deployed(TERN_PACK_T2);
    OK(open_file(&f));
    file other = changed(&f, &(change){.tensor = "table.weight", .value = 0xff});
    assert_int_equal(open_file(&other), TERN_E_DATA); /* the fourth value of two bits */
    free(other.bytes);
    free(f.bytes);
}

/* ---- seeds */

/* A fuzzer cannot keep a checksum right: in a seed its two keys have names that mean nothing. */
static void disarm(file *f) {
    for (size_t i = 0; i + 13 < f->size; i++) {
        if (!memcmp(f->bytes + i, "tern.checksum", 13)) f->bytes[i] = 'T';
        if (!memcmp(f->bytes + i, "\"tern.crc32\"", 12)) f->bytes[i + 1] = 'T';
    }
}

/* With TERN_WRITE_SEEDS=FOLDER this writes them; without, those of the tree must still be models. */
static void test_seeds(void **state) {
    (void)state;
    const char *to = getenv("TERN_WRITE_SEEDS");
    static const char *const names[] = {"whole", "whole_t5"};
    for (int i = 0; i < 2; i++) {
        file f = i ? make_deployed(TERN_PACK_T5) : make_checkpoint();
        char path[400];
        snprintf(path, sizeof path, "%s/%s", to ? to : TERN_TEST_SEEDS "/model", names[i]);
        disarm(&f);
        if (to) file_put(path, f.bytes, f.size);
        free(f.bytes);
        tern_safetensors *read;
        tern_model_file model;
        f.bytes = file_text(path, &f.size);
        OK(tern_safetensors_open_memory(&read, f.bytes, f.size, path, TERN_ST_CHECKSUM_IF_PRESENT, &err));
        OK(tern_model_file_take(&model, &read, path, &err));
        tern_model_file_close(&model);
        free(f.bytes);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_checkpoints),
        cmocka_unit_test(test_deployed),
        cmocka_unit_test(test_seeds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
