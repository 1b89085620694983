/* metrics.jsonl: the lines as they are written, and what resuming keeps of them. */
#define _GNU_SOURCE
#include <signal.h>
#include <sys/resource.h>

#include "testing.h"
#include "train/metrics_log.h"

static void check_content(const char *path, const char *want) {
    char *text = file_text(path, NULL);
    assert_string_equal(text, want);
    free(text);
}

static void test_lines(void **state) {
    (void)state;
    temporary_folder folder;
    tern_metrics_log *log = NULL;
    folder_create(&folder);
    const char *path = folder_file(&folder, "metrics.jsonl");
    assert_int_equal(tern_metrics_log_open(&log, path, NULL), TERN_OK);
    assert_int_equal(tern_metrics_log_train(log,
                                            &(tern_metrics_train){.step = 100,
                                                                  .epoch = 1.25,
                                                                  .loss = (double)0.1f,
                                                                  .lr = 1e-3,
                                                                  .grad_norm = (double)INFINITY,
                                                                  .images_per_second = 5012},
                                            NULL),
                     TERN_OK);
    assert_int_equal(
        tern_metrics_log_evaluation(
            log, &(tern_metrics_evaluation){.step = 100, .val_loss = (double)NAN, .val_accuracy = 0.5}, NULL),
        TERN_OK);
    assert_int_equal(
        tern_metrics_log_train(log, &(tern_metrics_train){.step = 101, .loss_scale = 65536, .overflowed = 2}, NULL),
        TERN_OK);
    tern_metrics_log_close(&log);
    assert_null(log);
    assert_int_equal(tern_metrics_log_open(&log, path, NULL), TERN_OK);
    assert_int_equal(
        tern_metrics_log_layer(
            log,
            &(tern_metrics_layer){
                .step = 100, .layer = "a\"\n\xc3\xa9", .minus = 0.25, .zero = 0.5, .plus = 0.25, .flips = 0},
            NULL),
        TERN_OK);
    assert_int_equal(tern_metrics_log_layer(log, &(tern_metrics_layer){.layer = "\xff"}, NULL), TERN_E_ARGUMENT);
    assert_int_equal(tern_metrics_log_train(log, &(tern_metrics_train){.step = UINT64_MAX}, NULL), TERN_E_ARGUMENT);
    tern_metrics_log_close(&log);
    tern_metrics_log_close(&log);
    check_content(path, "{\"step\":100,\"epoch\":1.25,\"loss\":0.100000001,\"lr\":0.001,\"grad_norm\":null,"
                        "\"images_per_second\":5012}\n"
                        "{\"step\":100,\"val_loss\":null,\"val_accuracy\":0.5}\n"
                        "{\"step\":101,\"epoch\":0,\"loss\":0.0,\"lr\":0.0,\"grad_norm\":0.0,"
                        "\"images_per_second\":0,\"loss_scale\":65536,\"overflow_steps\":2}\n"
                        "{\"step\":100,\"layer\":\"a\\\"\\n\xc3\xa9\",\"minus\":0.25,\"zero\":0.5,\"plus\":0.25,"
                        "\"flips\":0.0}\n");
    assert_int_equal(tern_metrics_log_open(&log, folder.path, NULL), TERN_E_FILE);
    assert_null(log);
    folder_remove(&folder);
}

/* What a killed run left is cut off, however long, and nothing else is. */
static void test_open_after_a_kill(void **state) {
    (void)state;
    temporary_folder folder;
    tern_metrics_log *log = NULL;
    char text[10000];
    folder_create(&folder);
    const char *path = folder_file(&folder, "metrics.jsonl");
    memset(text, 'x', sizeof text);
    memcpy(text, "{\"step\":1}\n", 11);
    const size_t lengths[] = {0, 11, 12, 4096, 4107, 4108, sizeof text};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        file_put(path, text, lengths[i]);
        assert_int_equal(tern_metrics_log_open(&log, path, NULL), TERN_OK);
        assert_int_equal(tern_metrics_log_evaluation(log, &(tern_metrics_evaluation){.step = 2}, NULL), TERN_OK);
        tern_metrics_log_close(&log);
        check_content(path, lengths[i] ? "{\"step\":1}\n{\"step\":2,\"val_loss\":0.0,\"val_accuracy\":0.0}\n"
                                       : "{\"step\":2,\"val_loss\":0.0,\"val_accuracy\":0.0}\n");
    }
    file_put(path, text + 11, 5000);
    assert_int_equal(tern_metrics_log_open(&log, path, NULL), TERN_OK);
    tern_metrics_log_close(&log);
    check_content(path, "");
    folder_remove(&folder);
}

static void test_full_disk(void **state) {
    (void)state;
    temporary_folder folder;
    tern_metrics_log *log = NULL;
    struct rlimit limit, small;
    tern_error err = {0};
    folder_create(&folder);
    const char *path = folder_file(&folder, "metrics.jsonl");
    file_put(path, "{\"step\":1}\n", 11);
    assert_int_equal(tern_metrics_log_open(&log, path, NULL), TERN_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    small = limit;
    small.rlim_cur = 20;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    const tern_status status = tern_metrics_log_evaluation(log, &(tern_metrics_evaluation){.step = 2}, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
    assert_int_equal(status, TERN_E_FILE);
    assert_non_null(strstr(err.message, "metrics.jsonl: cannot append"));
    tern_metrics_log_close(&log);
    check_content(path, "{\"step\":1}\n");
    folder_remove(&folder);
}

static void test_truncate(void **state) {
    (void)state;
    static const char text[] = "{\"step\":1}\n{\"step\":3,\"loss\":1}\nnonsense\n{\"step\":2,\"layer\":\"x\"}\n"
                               "{\"loss\":2}\n{\"step\":4}\n{\"step\":3}";
    temporary_folder folder;
    size_t damaged = 99;
    folder_create(&folder);
    const char *path = folder_file(&folder, "metrics.jsonl");
    assert_int_equal(tern_metrics_log_truncate(path, 3, &damaged, NULL), TERN_OK);
    assert_int_equal(damaged, 0);
    assert_int_equal(folder_count(&folder), 0);
    file_put(path, text, sizeof text - 1);
    assert_int_equal(tern_metrics_log_truncate(path, 3, &damaged, NULL), TERN_OK);
    assert_int_equal(damaged, 3);
    check_content(path, "{\"step\":1}\n{\"step\":3,\"loss\":1}\n{\"step\":2,\"layer\":\"x\"}\n");
    assert_int_equal(tern_metrics_log_truncate(path, 2, &damaged, NULL), TERN_OK);
    assert_int_equal(damaged, 0);
    check_content(path, "{\"step\":1}\n{\"step\":2,\"layer\":\"x\"}\n");
    assert_int_equal(tern_metrics_log_truncate(path, 0, NULL, NULL), TERN_OK);
    check_content(path, "");
    assert_int_equal(folder_count(&folder), 1);
    assert_int_equal(tern_metrics_log_truncate(folder.path, 0, NULL, NULL), TERN_E_FILE);
    folder_remove(&folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_lines),
        cmocka_unit_test(test_open_after_a_kill),
        cmocka_unit_test(test_full_disk),
        cmocka_unit_test(test_truncate),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
