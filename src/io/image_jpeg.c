/* JPEG through libjpeg: grey or colour, with the accurate integer transform, so that the bytes are the same on every
 * machine. libjpeg fills in what is missing of a damaged file and warns; here such a warning is an error. */
#include <setjmp.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <jpeglib.h> /* needs the headers above */

#include <jerror.h>

#include "base/error.h"
#include "io/image_decode.h"
#include "io/unpacked_file.h"

/* A progressive picture is held as a whole, in coefficients: this is enough for 13000 x 13000 in colour. */
enum { MAX_MEMORY = 1 << 30 };

typedef struct trouble {
    struct jpeg_error_mgr base; /* first: libjpeg knows the rest by it */
    jmp_buf jump;
    char message[JMSG_LENGTH_MAX];
} trouble;

__attribute__((noreturn)) static void jump_out(j_common_ptr jpeg) {
    trouble *t = (trouble *)jpeg->err;
    t->base.format_message(jpeg, t->message);
    longjmp(t->jump, 1);
}

static void on_message(j_common_ptr jpeg, int level) {
    int code = jpeg->err->msg_code;
    if (level < 0 && code != JWRN_EXTRANEOUS_DATA && code != JWRN_ADOBE_XFORM && code != JWRN_JFIF_MAJOR)
        jump_out(jpeg);
}

/* Nonzero on success; else t->message says why not. */
static int read_picture(struct jpeg_decompress_struct *jpeg, trouble *t, tern_image_info *info, uint8_t *out,
                        const uint8_t *content, size_t bytes) {
    if (setjmp(t->jump)) return 0;
    jpeg_create_decompress(jpeg);
    jpeg->mem->max_memory_to_use = MAX_MEMORY;
    jpeg_mem_src(jpeg, content, bytes);
    jpeg_read_header(jpeg, TRUE);
    info->height = jpeg->image_height;
    info->width = jpeg->image_width;
    info->channels = jpeg->num_components == 1 ? 1 : 3;
    if (jpeg->num_components != 1 && jpeg->num_components != 3) ERREXIT(jpeg, JERR_CONVERSION_NOTIMPL);
    if (!out) return 1;
    jpeg->out_color_space = info->channels == 1 ? JCS_GRAYSCALE : JCS_RGB;
    jpeg->dct_method = JDCT_ISLOW;
    jpeg_start_decompress(jpeg);
    while (jpeg->output_scanline < jpeg->output_height) {
        JSAMPROW row = out + (size_t)jpeg->output_scanline * info->width * info->channels;
        jpeg_read_scanlines(jpeg, &row, 1);
    }
    jpeg_finish_decompress(jpeg);
    return 1;
}

static tern_status explain(const struct jpeg_decompress_struct *jpeg, const trouble *t, size_t bytes,
                           const char *path, tern_error *err) {
    const int code = jpeg->err->msg_code;
    if (code == JERR_NO_BACKING_STORE || code == JERR_OUT_OF_MEMORY)
        return tern_fail(err, TERN_E_MEMORY, TERN_NO_PLACE,
                         "%s: a JPEG of %u x %u pixels that takes more memory than there is, or than 1 GiB",
                         tern_path_tail(path), jpeg->image_height, jpeg->image_width);
    size_t at = jpeg->src ? bytes - jpeg->src->bytes_in_buffer : 0;
    if (at > bytes) at = bytes; /* past the end libjpeg reads an end marker of its own */
    return tern_fail(err, TERN_E_DATA, at, "%s: byte %zu: not a valid JPEG: %.90s", tern_path_tail(path), at,
                     t->message);
}

tern_status tern_jpeg_decode(tern_image_info *info, uint8_t *out, const uint8_t *content, size_t bytes,
                             const char *path, tern_error *err) {
    struct jpeg_decompress_struct jpeg;
    memset(&jpeg, 0, sizeof jpeg);
    trouble t;
    jpeg.err = jpeg_std_error(&t.base);
    t.base.error_exit = jump_out;
    t.base.emit_message = on_message;
    tern_status status = TERN_OK;
    if (!read_picture(&jpeg, &t, info, out, content, bytes)) status = explain(&jpeg, &t, bytes, path, err);
    jpeg_destroy_decompress(&jpeg);
    return status;
}
