/* report.html: well-formed, with the curves that the metrics say, whatever the strings and the metrics are. */
#define _GNU_SOURCE
#include <locale.h>

#include "testing.h"
#include "train/report.h"
#include "train/report_axis.h"
#include "train/report_html.h"

/* ---- a strict reader of the little HTML there is --------------------------------------------------------------- */

enum { DEPTH = 32 };

static const char *skip_name(const char *p) {
    while ((*p >= 'a' && *p <= 'z') || (*p >= 'A' && *p <= 'Z') || (*p >= '0' && *p <= '9') || *p == '-') p++;
    return p;
}

static void check_entity(const char *p) {
    static const char *const known[] = {"&amp;", "&lt;", "&gt;", "&quot;", "&#39;"};
    for (size_t i = 0; i < sizeof known / sizeof *known; i++)
        if (!strncmp(p, known[i], strlen(known[i]))) return;
    fail_msg("a bare &: %.40s", p);
}

/* name="value" as often as there is one; returns what follows. */
static const char *skip_attributes(const char *p) {
    while (*p == ' ') {
        const char *name = p + 1;
        p = skip_name(name);
        if (p == name || p[0] != '=' || p[1] != '"') fail_msg("not an attribute: %.40s", name);
        for (p += 2; *p != '"'; p++) {
            if (!*p || *p == '<' || *p == '>') fail_msg("in an attribute: %.40s", name);
            if (*p == '&') check_entity(p);
        }
        p++;
    }
    return p;
}

/* Every element is closed in its order; text holds no markup. */
static void check_well_formed(const char *page) {
    static const char doctype[] = "<!DOCTYPE html>\n";
    const char *open[DEPTH] = {0}, *p = page;
    size_t lengths[DEPTH] = {0};
    int depth = 0;
    assert_int_equal(strncmp(p, doctype, strlen(doctype)), 0);
    for (p += strlen(doctype); *p;) {
        if (*p == '&') check_entity(p);
        if (*p == '>') fail_msg("a bare >: %.40s", p);
        if (*p++ != '<') continue;
        const int closing = *p == '/';
        const char *name = p += closing;
        p = skip_name(name);
        const size_t length = (size_t)(p - name);
        if (!length) fail_msg("a bare <: %.40s", name);
        if (closing) {
            if (!depth || lengths[depth - 1] != length || strncmp(open[depth - 1], name, length))
                fail_msg("closes what is not open: %.40s", name);
            depth--;
        } else {
            p = skip_attributes(p);
            if (*p == '/') {
                p++;
            } else if (strncmp(name, "meta", 4)) {
                assert_true(depth < DEPTH);
                open[depth] = name;
                lengths[depth++] = length;
            }
        }
        if (*p++ != '>') fail_msg("a tag without end: %.40s", name);
        if (!closing && !strncmp(name, "style", 5)) p = strstr(p, "</style>");
    }
    assert_int_equal(depth, 0);
}

static char *make_page(const tern_report_input *input) {
    temporary_folder folder;
    tern_error err = {0};
    folder_create(&folder);
    const char *path = folder_file(&folder, "report.html");
    if (tern_report_write(path, input, &err)) fail_msg("%s", err.message);
    char *page = file_text(path, NULL);
    folder_remove(&folder);
    check_well_formed(page);
    return page;
}

/* The page of a metrics file that holds this text. */
static char *page_of_metrics(tern_report_input input, const char *metrics, size_t size) {
    temporary_folder folder;
    folder_create(&folder);
    input.metrics_path = folder_file(&folder, "metrics.jsonl");
    file_put(input.metrics_path, metrics, size);
    char *page = make_page(&input);
    folder_remove(&folder);
    return page;
}

static void check_has(const char *page, const char *what) {
    if (!strstr(page, what)) fail_msg("the page lacks: %s", what);
}

static void check_lacks(const char *page, const char *what) {
    const char *at = strstr(page, what);
    if (at) fail_msg("the page has: %.60s", at);
}

static size_t count_of(const char *page, const char *what) {
    size_t n = 0;
    for (const char *p = strstr(page, what); p; p = strstr(p + 1, what)) n++;
    return n;
}

/* ---- pages ----------------------------------------------------------------------------------------------------- */

static const char small_metrics[] =
    "{\"step\":0,\"epoch\":0,\"loss\":2,\"lr\":0.001,\"grad_norm\":1,\"images_per_second\":1500}\n"
    "{\"step\":100,\"epoch\":1,\"loss\":1,\"lr\":0.0005,\"grad_norm\":null,\"images_per_second\":1600}\n"
    "{\"step\":100,\"val_loss\":1.5,\"val_accuracy\":0.75}\n"
    "{\"step\":100,\"layer\":\"fc1\",\"minus\":0.25,\"zero\":0.5,\"plus\":0.25,\"flips\":0.1}\n"
    "{\"step\":200,\"epoch\":2,\"loss\":0,\"lr\":0,\"grad_norm\":3,\"images_per_second\":1700}\n"
    "{\"step\":200,\"val_loss\":0.5,\"val_accuracy\":0.875}\n"
    "{\"step\":200,\"layer\":\"fc1\",\"minus\":0.5,\"zero\":0.25,\"plus\":0.25,\"flips\":0.01}\n";

static void test_small(void **state) {
    (void)state;
    static const tern_report_pair config[] = {{"epochs", "2"}}, results[] = {{"accuracy", "87.5 %"}};
    static const uint64_t counts[] = {9, 1, 2, 1238};
    static const char *const names[] = {"cat", "dog"};
    const tern_report_input input = {.title = "small",
                                     .config = config,
                                     .config_count = 1,
                                     .results = results,
                                     .result_count = 1,
                                     .confusion = {2, counts, names},
                                     .sample = "a\n b"};
    char *page = page_of_metrics(input, small_metrics, sizeof small_metrics - 1);
    check_has(page, "<title>small</title>");
    check_has(page, "<h1>small</h1>\n<p>200 steps, epoch 2</p>");
    /* Curves: places of (0, 2), (100, 1), (200, 0), and the others' values on their own axes. */
    check_has(page, "<path class=\"l s1\" d=\"M64.0,26.0L267.0,117.0L470.0,208.0\"/>");
    check_has(page, "<path class=\"l s2\" d=\"M267.0,71.5L470.0,162.5\"/>");
    check_has(page, "Loss <small>mean</small>");
    check_has(page, "Validation accuracy");
    check_has(page, "Learning rate");
    check_has(page, "Gradient norm");
    check_has(page, "images per second");
    check_has(page, "<title>step 200 \xc2\xb7 epoch 2 \xc2\xb7 train 0 \xc2\xb7 val 0.5</title>");
    check_has(page, "<span><i class=\"s1\"></i>train</span><span><i class=\"s2\"></i>val</span>");
    /* Tiles, layers, tables. */
    check_has(page, "<b>87.50%</b><small>step 200; end 87.50%</small>");
    check_has(page, "<b>1,600</b><small>median</small>");
    check_has(page, "<figcaption>fc1</figcaption><p class=\"n\">\xe2\x88\x92"
                    "1 50.0% \xc2\xb7 0 25.0% \xc2\xb7 +1 25.0%</p>");
    check_has(page, "<path class=\"s minus\" d=\"M54.0,82.5L232.0,61.0L232.0,104.0L54.0,104.0Z\"/>");
    check_has(page, "<path class=\"s plus\" d=\"M54.0,18.0L232.0,18.0L232.0,39.5L54.0,39.5Z\"/>");
    check_has(page, "<title>step 200 \xc2\xb7 flips/step 0.01%</title>");
    check_has(page, "<tr><th>epochs</th><td>2</td></tr>");
    check_has(page, "<tr><th>accuracy</th><td>87.5 %</td></tr>");
    check_has(page, "title=\"cat taken for dog: 1 (10.0%)\">1</td><td>90.0%</td>");
    check_has(page, ">1,238</td><td>99.8%</td>");
    check_has(page, "<pre>a\n b</pre>");
    /* One file, no scripts. */
    check_lacks(page, "<script");
    check_lacks(page, "http");
    check_lacks(page, "url(");
    check_lacks(page, "@import");
    check_lacks(page, "nan");
    check_lacks(page, "inf");
    check_has(page, "prefers-color-scheme:dark");
    check_has(page, "width=device-width");
    char *again = page_of_metrics(input, small_metrics, sizeof small_metrics - 1);
    assert_string_equal(page, again);
    free(again);
    free(page);
}

static void test_hostile_strings(void **state) {
    (void)state;
    static const char evil[] =
        "</title><script>alert('x')</script>\"&amp; \xff\xc0\xaf\xed\xa0\x80\xf5\x80\x80\x80\x1b[31m"
        "\xe2\x80\xae\xc3\xa9";
    static const char safe[] = "&lt;/title&gt;&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;&quot;&amp;amp; ";
    static const char metrics[] =
        "{\"step\":1,\"layer\":\"<b>'\\\"\\u0007\",\"minus\":0.2,\"zero\":0.5,\"plus\":0.3}\n"
        "{\"step\":2,\"layer\":\"<b>'\\\"\\u0007\",\"minus\":7,\"zero\":-1e99,\"plus\":1e300}\n"
        "{\"step\":3,\"layer\":\"y\",\"minus\":-1e99,\"zero\":1e99,\"plus\":1e99,\"flips\":1e99}\n";
    static const uint64_t counts[] = {1, UINT64_MAX, 0, 0};
    static const char *const names[] = {evil, NULL};
    const tern_report_pair pair = {evil, evil}, nulls = {NULL, NULL};
    const tern_report_input input = {.title = evil,
                                     .config = &pair,
                                     .config_count = 1,
                                     .results = &nulls,
                                     .result_count = 1,
                                     .confusion = {2, counts, names},
                                     .sample = evil};
    char *page = page_of_metrics(input, metrics, sizeof metrics - 1);
    assert_int_equal(count_of(page, safe), 11); /* title, heading, pair, sample, headers, cells */
    check_lacks(page, "<script");
    check_lacks(page, "\x1b");
    check_lacks(page, "\xff");
    check_lacks(page, "\xe2\x80\xae");
    check_has(page, "\xef\xbf\xbd[31m\xef\xbf\xbd\xc3\xa9");
    check_has(page, "&lt;b&gt;&#39;&quot;\xef\xbf\xbd");
    check_lacks(page, "nan");
    free(page);
}

static void test_damaged_metrics(void **state) {
    (void)state;
    static const char broken[] =
        "\n[1]\n{\"loss\":1}\n{\"step\":-1}\n{\"step\":\"1\"}\n{\"step\":1e300}\nnull\n\xff\n"
        "{\"step\":1,\"loss\":1e400}\n{\"step\":1,\"loss\":\"x\"}\n";
    const tern_report_input input = {.title = "t"};
    /* A killed run: cut at many places, the whole lines are there. */
    for (size_t size = 0; size < sizeof small_metrics; size += size < 100 ? 1 : 11) {
        char *page = page_of_metrics(input, small_metrics, size);
        const size_t end = strcspn(small_metrics, "\n");
        const int cut =
            size && size + 1 < sizeof small_metrics && small_metrics[size] != '\n' && small_metrics[size - 1] != '\n';
        if (!!strstr(page, "is cut short") != cut) fail_msg("after %zu bytes", size);
        check_lacks(page, "could not be read");
        assert_int_equal(strstr(page, "Nothing was measured") != NULL, size < end);
        free(page);
    }
    char *page = page_of_metrics(input, broken, sizeof broken - 1);
    check_has(page, "9 lines of the metrics could not be read and were left out.");
    free(page);
    tern_report_input absent = input;
    absent.metrics_path = "/nonexistent/metrics.jsonl";
    page = make_page(&absent);
    check_has(page, "Nothing was measured yet");
    free(page);
    page = make_page(&input);
    check_has(page, "Nothing was measured yet");
    free(page);
}

/* A run resumed without cutting its log: the later lines count. */
static void test_steps_that_go_back(void **state) {
    (void)state;
    static const char metrics[] = "{\"step\":0,\"loss\":2}\n{\"step\":100,\"loss\":9}\n{\"step\":150,\"loss\":9}\n"
                                  "{\"step\":100,\"loss\":1}\n{\"step\":200,\"loss\":0}\n";
    char *page = page_of_metrics((tern_report_input){.title = "t"}, metrics, sizeof metrics - 1);
    check_has(page, "d=\"M64.0,26.0L267.0,117.0L470.0,208.0\"");
    free(page);
}

/* A hundred thousand steps: 600 points, the one outlier of either side among them. */
static void test_long_run(void **state) {
    (void)state;
    enum { STEPS = 100000 };
    char *metrics = NULL;
    size_t size = 0;
    FILE *out = open_memstream(&metrics, &size);
    for (int i = 0; i < STEPS; i++)
        fprintf(out, "{\"step\":%d,\"loss\":%s}\n", i, i == 33333 ? "5" : i == 77777 ? "1" : i % 2 ? "2" : "3");
    fclose(out);
    char *page = page_of_metrics((tern_report_input){.title = "t"}, metrics, size);
    const char *d = strstr(page, "<path class=\"l s1 f\" d=\"M");
    assert_non_null(d);
    size_t points = 1;
    for (const char *p = d + 24; *p != '"'; p++) points += *p == 'L';
    assert_in_range(points, 500, 600);
    assert_non_null(memmem(d, (size_t)(strchr(d + 24, '"') - d), ",26.0L", 6));  /* 5 */
    assert_non_null(memmem(d, (size_t)(strchr(d + 24, '"') - d), ",208.0L", 7)); /* 1 */
    assert_in_range(strlen(page), 1000, 200000);
    free(page);
    free(metrics);
}

static void test_other_locale(void **state) {
    (void)state;
    if (!setlocale(LC_ALL, "de_DE.UTF-8")) skip();
    char *page = page_of_metrics((tern_report_input){.title = "t"}, small_metrics, sizeof small_metrics - 1);
    check_has(page, "d=\"M64.0,26.0L267.0,117.0L470.0,208.0\"");
    setlocale(LC_ALL, "C");
    free(page);
}

static void test_refusals(void **state) {
    (void)state;
    temporary_folder folder;
    tern_error err = {0};
    folder_create(&folder);
    const char *path = folder_file(&folder, "r.html");
    assert_int_equal(tern_report_write(NULL, &(tern_report_input){0}, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_report_write(path, NULL, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_report_write(path, &(tern_report_input){.config_count = 1}, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_report_write(path, &(tern_report_input){.result_count = 1}, &err), TERN_E_ARGUMENT);
    assert_int_equal(tern_report_write(path, &(tern_report_input){.confusion = {.classes = 1}}, &err),
                     TERN_E_ARGUMENT);
    assert_int_equal(tern_report_write(path, &(tern_report_input){.metrics_path = folder.path}, &err), TERN_E_FILE);
    assert_int_equal(tern_report_write("/nonexistent/r.html", &(tern_report_input){0}, &err), TERN_E_FILE);
    assert_int_equal(folder_count(&folder), 0);
    folder_remove(&folder);
}

/* ---- numbers and axes ------------------------------------------------------------------------------------------ */

static void test_numbers(void **state) {
    (void)state;
    static const struct {
        double value;
        const char *number, *step;
    } cases[] = {{0, "0", "0"},
                 {1, "1", "1"},
                 {999, "999", "999"},
                 {1000, "1,000", "1k"},
                 {12500, "12,500", "12.5k"},
                 {1234567, "1,234,567", "1.235M"},
                 {-123456, "-123,456", NULL},
                 {0.00012345, "0.0001234", NULL},
                 {1.25e-5, "1.25e-5", NULL},
                 {1e-12, "1e-12", NULL},
                 {1e20, "1e+20", NULL}};
    char text[48];
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_string_equal(tern_html_number(text, sizeof text, cases[i].value), cases[i].number);
        if (cases[i].step) assert_string_equal(tern_html_step(text, sizeof text, cases[i].value), cases[i].step);
    }
}

static void check_axis(const tern_axis *axis, double least, double most) {
    assert_true(axis->least < axis->most);
    assert_true(axis->least <= least * (least > 0 ? 1.001 : 1) && axis->most >= most * 0.999);
    assert_in_range(axis->tick_count, 2, TERN_AXIS_TICKS);
    for (int i = 0; i < axis->tick_count; i++) {
        const double at = tern_axis_place(axis, axis->ticks[i]);
        assert_true(at >= -0.01 && at <= 100.01);
        if (i) assert_true(axis->ticks[i] > axis->ticks[i - 1]);
    }
}

static void test_axes(void **state) {
    (void)state;
    static const double leasts[] = {0, 1e-9, 0.1, 0.3, 1, 7, 1234}, factors[] = {1, 1.0001, 1.5, 9, 101, 1e6, 1e30};
    for (size_t i = 0; i < sizeof leasts / sizeof *leasts; i++)
        for (size_t k = 0; k < sizeof factors / sizeof *factors; k++) {
            const double least = leasts[i], most = least > 0 ? least * factors[k] : factors[k] - 1;
            const tern_axis linear = tern_axis_linear(least, most, 0, 100, 5, 1);
            check_axis(&linear, least, most);
            if (!(least > 0)) continue;
            const tern_axis logarithmic = tern_axis_logarithmic(least, most, 0, 100);
            check_axis(&logarithmic, least, most);
        }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_small),
        cmocka_unit_test(test_hostile_strings),
        cmocka_unit_test(test_damaged_metrics),
        cmocka_unit_test(test_steps_that_go_back),
        cmocka_unit_test(test_long_run),
        cmocka_unit_test(test_other_locale),
        cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_axes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
