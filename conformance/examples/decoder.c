/* A decoder of .wlc images in C99, written from SPEC.md; numbers in comments are its clauses. libm and nothing else.
 *
 *     cc -O2 -o decoder decoder.c -lm
 *     decoder decode symbols|stream MODEL.safetensors IN.wlc OUT.npy [PARAMETERS]
 *
 * The command line is that of the conformance suite (README.md): exit code 0 done, 10 rejected, 11 unsupported. It knows
 * LinearCodec2D, ResidualCodec2D and Codec2D; audio and volumes are unsupported. Clear, not fast: one thread, one process a
 * stream. */

#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { DONE = 0, TROUBLE = 1, REJECTED = 10, UNSUPPORTED = 11 };

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int64_t i64;

static const char *name(const char *format, ...) {         /* formatted text, good for the next seven calls */
    static char buffers[8][160];
    static int turn;
    char *out = buffers[++turn % 8];
    va_list list;
    va_start(list, format);
    vsnprintf(out, sizeof buffers[0], format, list);
    va_end(list);
    return out;
}

static void fail(int code, const char *what) { exit(fprintf(stderr, "%s\n", what) < 0 ? TROUBLE : code); }

static void require(int condition, const char *what) {
    if (!condition)
        fail(REJECTED, name("rejected: %s", what));
}

static void *allocate(u64 count, size_t size) {
    require(count < SIZE_MAX / 2 / size, "12.4, too large");
    void *memory = calloc(count ? count : 1, size);
    if (!memory)
        fail(TROUBLE, "out of memory");
    return memory;
}

static double *doubles(u64 count) { return allocate(count, sizeof(double)); }

/* ---- bytes ------------------------------------------------------------------------------------------------------- */
typedef struct { const u8 *data; u64 size, at; } Bytes;

static Bytes read_file(const char *path) {
    FILE *file = fopen(path, "rb");
    long size = file && fseek(file, 0, SEEK_END) == 0 ? ftell(file) : -1;
    u8 *data = size < 0 ? NULL : allocate((u64)size, 1);
    if (!data || fseek(file, 0, SEEK_SET) || fread(data, 1, (size_t)size, file) != (size_t)size || fclose(file))
        fail(TROUBLE, name("cannot read %s", path));
    return (Bytes){data, (u64)size, 0};
}

static const u8 *take(Bytes *in, u64 size) {
    require(size <= in->size - in->at, "12.2, truncated");
    in->at += size;
    return in->data + in->at - size;
}

static u64 little(const u8 *bytes, int count) {
    u64 value = 0;
    while (count--)
        value = value << 8 | bytes[count];
    return value;
}

static u64 take_little(Bytes *in, int count) { return little(take(in, (u64)count), count); }
static u64 varint(Bytes *in, u64 low, u64 high, const char *what) {                /* 1.6 */
    u64 value = 0;
    for (int i = 0; i < 9; i++) {
        u8 byte = *take(in, 1);
        value |= (u64)(byte & 127) << 7 * i;
        if (byte < 128) {
            require(byte > 0 || i == 0, "1.6, varint not in its shortest form");
            require(low <= value && value <= high, what);
            return value;
        }
    }
    require(0, "1.6, varint of more than 9 bytes");
    return 0;
}

static u32 crc32(const u8 *data, u64 size) {                                       /* 10.2 */
    u32 crc = 0xFFFFFFFF;
    for (u64 i = 0; i < size; i++) {
        crc ^= data[i];
        for (int bit = 0; bit < 8; bit++)
            crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
    }
    return ~crc;
}

/* ---- SHA-256 (FIPS 180-4) ---------------------------------------------------------------------------------------- */
typedef struct { u32 state[8]; u64 size; u8 block[64]; } Sha;
static u32 sha_constants[64];
static u32 fraction(double x) { return (u32)((x - floor(x)) * 4294967296.0); }
static Sha sha_begin(void) {
    Sha sha = {0};
    for (int n = 2, d, found = 0; found < 64; n++) {       /* fractions of the roots of the first 64 primes */
        for (d = 2; n % d; )
            d++;
        if (d == n && found < 8)
            sha.state[found] = fraction(sqrt(n));
        if (d == n)
            sha_constants[found++] = fraction(cbrt(n));
    }
    return sha;
}

static u32 rotate(u32 x, int by) { return x >> by | x << (32 - by); }
static void sha_block(Sha *sha) {
    u32 w[64], s[8];
    for (int i = 0; i < 64; i++) {
        const u8 *b = sha->block + 4 * i % 64;
        u32 p = i < 16 ? 0 : w[i - 15], q = i < 16 ? 0 : w[i - 2];
        w[i] = i < 16 ? (u32)b[0] << 24 | (u32)b[1] << 16 | (u32)b[2] << 8 | b[3]
             : w[i - 16] + (rotate(p, 7) ^ rotate(p, 18) ^ p >> 3) + w[i - 7] + (rotate(q, 17) ^ rotate(q, 19) ^ q >> 10);
    }
    memcpy(s, sha->state, sizeof s);
    for (int i = 0; i < 64; i++) {
        u32 one = s[7] + (rotate(s[4], 6) ^ rotate(s[4], 11) ^ rotate(s[4], 25)) + ((s[4] & s[5]) ^ (~s[4] & s[6]))
                + sha_constants[i] + w[i];
        u32 two = (rotate(s[0], 2) ^ rotate(s[0], 13) ^ rotate(s[0], 22)) + ((s[0] & s[1]) ^ (s[0] & s[2]) ^ (s[1] & s[2]));
        memmove(s + 1, s, 7 * sizeof *s);
        s[4] += one;
        s[0] = one + two;
    }
    for (int i = 0; i < 8; i++)
        sha->state[i] += s[i];
}

static void sha_add(Sha *sha, const void *data, u64 size) {
    const u8 *bytes = data;
    while (size--) {
        sha->block[sha->size++ % 64] = *bytes++;
        if (sha->size % 64 == 0)
            sha_block(sha);
    }
}

static void sha_end(Sha *sha, u8 digest[32]) {
    u64 bits = 8 * sha->size;
    sha_add(sha, "\x80", 1);
    while (sha->size % 64 != 56)
        sha_add(sha, "", 1);
    for (int i = 56; i >= 0; i -= 8)
        sha_add(sha, &(u8){(u8)(bits >> i)}, 1);
    for (int i = 0; i < 32; i++)
        digest[i] = (u8)(sha->state[i / 4] >> (24 - 8 * (i % 4)));
}

static int sha_starts_with(const void *data, u64 size, const u8 *wanted, size_t count) {
    u8 digest[32];
    Sha sha = sha_begin();
    sha_add(&sha, data, size);
    sha_end(&sha, digest);
    return !memcmp(digest, wanted, count);
}

/* ---- JSON as a flat list: {"a": {"b": [3]}} is one item, path "a\1b\1" "0", text "3" ------------------------------- */
typedef struct { char *path, *text, type; } Item;          /* type: the first character of the value */
typedef struct { Item *items; u64 count; } Json;

static int peek(Bytes *in) {
    while (in->at < in->size && in->data[in->at] && strchr(" \t\r\n", in->data[in->at]))
        in->at++;
    return in->at < in->size ? in->data[in->at] : -1;
}

static int accept(Bytes *in, int wanted) {
    int found = peek(in) == wanted;
    in->at += (u64)found;
    return found;
}

static char *json_string(Bytes *in) {                      /* escapes other than \" \\ \/ become '?': nothing here has them */
    require(accept(in, '"'), "8.1, JSON");
    char *out = allocate(in->size - in->at + 1, 1);
    for (u64 n = 0;; n++) {
        u8 c = *take(in, 1);
        if (c == '"')
            return realloc(out, n + 1);
        require(c >= 32, "8.1, JSON string");
        if (c == '\\') {
            c = *take(in, 1);
            c = c == '"' || c == '\\' || c == '/' ? c : '?';
        }
        out[n] = (char)c;
    }
}

static char *join(const char *a, const char *b) {
    char *out = allocate(strlen(a) + strlen(b) + 2, 1);
    return strcat(strcat(strcpy(out, a), *a ? "\1" : ""), b);
}

static void flatten(Json *json, Bytes *in, char *path, int depth) {
    int c = peek(in), close = c == '{' ? '}' : ']';
    char number[24], *text;
    require(depth < 8, "8.1, JSON nested too deeply");
    if (c == '{' || c == '[') {
        in->at++;
        int closed = accept(in, close);
        for (int n = 0, more = !closed; more; more = accept(in, ','), n++) {
            snprintf(number, sizeof number, "%d", n);
            text = c == '{' ? json_string(in) : number;
            require(c == '[' || accept(in, ':'), "8.1, JSON");
            flatten(json, in, join(path, text), depth + 1);
        }
        require(closed || accept(in, close), "8.1, JSON");
        return;
    }
    if (c == '"') {
        text = json_string(in);
    } else {
        u64 start = in->at;
        while (in->at < in->size && !strchr(",]} \t\r\n", in->data[in->at]))
            in->at++;
        require(in->at > start, "8.1, JSON value");
        text = allocate(in->at - start + 1, 1);
        memcpy(text, in->data + start, in->at - start);
    }
    json->items[json->count++] = (Item){path, text, (char)c};
}

static Json parse(const void *data, u64 size) {
    Bytes in = {data, size, 0};
    Json json = {allocate(size / 2 + 1, sizeof(Item)), 0}; /* an item has at least two characters */
    require(peek(&in) == '{', "8.1, JSON object");
    flatten(&json, &in, "", 0);
    require(peek(&in) < 0, "8.1, something follows the JSON object");
    return json;
}

static const Item *get(const Json *json, const char *path, const char *key) {
    const char *wanted = join(path, key);
    for (u64 i = 0; i < json->count; i++)
        if (!strcmp(json->items[i].path, wanted))
            return &json->items[i];
    return NULL;
}

static i64 integer(const Item *item) {
    char *end = NULL;
    i64 value = item ? strtoll(item->text, &end, 10) : 0;
    require(item && item->type != '"' && !*end && strlen(item->text) < 19, "8.3, an integer");
    return value;
}

/* ---- 8 model file ------------------------------------------------------------------------------------------------ */
enum { LINEAR = 1, RESIDUAL = 2, NONLINEAR = 4, ALL = 7 };
enum { LEVELS, ND, NE, ARCHITECTURE, CHANNELS, BITS, LATENT_DIM, LIGHTWEIGHT, STAGES, FIELDS };

static const struct { const char *name; int architectures; i64 low, high, absent; } FIELD[FIELDS] = {           /* 8.3 */
    {"J", ALL, 0, 10, 0}, {"Nd", NONLINEAR, 1, 8192, 0}, {"Ne", NONLINEAR, 1, 8192, 0}, {"architecture", ALL, 1, 4, 0},
    {"channels", ALL, 1, 4096, 0}, {"latent_bits", ALL, 2, 8, 0}, {"latent_dim", ALL, 1, 4096, 0},
    {"lightweight_encode", NONLINEAR, 0, 1, 1}, {"num_stages", RESIDUAL, 1, 64, 1}};
typedef struct { char *name; int expected, rank; u64 shape[4], begin, end; } Tensor;
typedef struct {
    i64 field[FIELDS];
    int bands, planes, m, checking;                        /* K, D, 2^J (1.8) */
    Tensor *tensors;
    u64 tensor_count, tables_size;
    const u8 *body, *states, *mixers;
    u8 *tables, *step_weights, identity[32];               /* 7.2, 6.8 */
    struct Plane *plane;                                   /* 7.4 */
} Model;

/* A tensor's values in binary64, to be freed; its shape has the first `rank` of outputs, inputs, side, side. Where the
 * model is only being checked, there are no values: networks then run on images without positions (8.5). */
static double *weights(const Model *model, const char *tensor_name, int rank, int outputs, int inputs, int side) {
    const u64 shape[4] = {(u64)outputs, (u64)inputs, (u64)side, (u64)side};
    Tensor *tensor = model->tensors, *end = tensor + model->tensor_count;
    while (tensor < end && strcmp(tensor->name, tensor_name))
        tensor++;
    require(tensor < end && tensor->rank == rank && !memcmp(tensor->shape, shape, (size_t)rank * sizeof *shape),
            name("8.5, %s missing or of another shape", tensor_name));
    tensor->expected = 1;
    u64 count = model->checking ? 0 : (tensor->end - tensor->begin) / 4;
    double *out = doubles(count);
    for (u64 i = 0; i < count; i++) {
        union { u32 bits; float value; } word = {(u32)little(model->body + tensor->begin + 4 * i, 4)};
        out[i] = word.value;
    }
    return out;
}

static int read_config(Model *model, const char *text, char canonical[512]) {      /* 8.3, 8.4; the canonical length */
    Json json = parse(text, strlen(text));
    const Item *item = get(&json, "", "architecture");
    const char *name = item && item->type == '"' ? item->text : "";
    if (!strcmp(name, "Codec1D") || !strcmp(name, "LinearCodec3D"))
        fail(UNSUPPORTED, "unsupported: audio and volumes");
    int architecture = !strcmp(name, "LinearCodec2D") ? LINEAR : !strcmp(name, "ResidualCodec2D") ? RESIDUAL
                     : !strcmp(name, "Codec2D") ? NONLINEAR : 0, n = 0;
    require(architecture != 0, "8.3, architecture");
    for (int f = 0; f < FIELDS; f++) {                     /* in ascending order of their names */
        model->field[f] = FIELD[f].absent;
        if (!(FIELD[f].architectures & architecture))
            continue;
        item = get(&json, "", FIELD[f].name);
        int flag = f == LIGHTWEIGHT, null = f == NE && (!item || !strcmp(item->text, "null"));
        require(item || null, FIELD[f].name);
        require(!flag || !strcmp(item->text, "true") || !strcmp(item->text, "false"), FIELD[f].name);
        i64 value = null ? 0 : f == ARCHITECTURE ? architecture : flag ? item->text[0] == 't' : integer(item);
        require(f == NE || (FIELD[f].low <= value && value <= FIELD[f].high), FIELD[f].name);
        model->field[f] = value;
        n += snprintf(canonical + n, 64, "%c\"%s\":", n ? ',' : '{', FIELD[f].name);
        if (null || flag || f == ARCHITECTURE)
            n += snprintf(canonical + n, 64, f == ARCHITECTURE ? "\"%s\"" : "%s", null ? "null" : item->text);
        else
            n += snprintf(canonical + n, 64, "%lld", (long long)value);
    }
    canonical[n++] = '}';
    i64 widths = model->field[LIGHTWEIGHT] ? 32 : model->field[NE];
    require(model->field[ND] % 32 == 0 && widths >= 1 && widths <= 8192 && widths % 32 == 0, "8.3, Nd or Ne");
    require(model->field[CHANNELS] << 2 * model->field[LEVELS] <= 65536, "8.3, bands");
    model->bands = (int)(model->field[CHANNELS] << 2 * model->field[LEVELS]);
    model->planes = (int)(model->field[LATENT_DIM] * model->field[STAGES]);
    model->m = 1 << model->field[LEVELS];
    return n;
}

static void identify(Model *model, const char *config, u64 config_size) {          /* 8.6 */
    u64 lengths[3] = {config_size, model->tables_size, (u64)model->planes};
    const void *parts[3] = {config, model->tables, model->step_weights};
    Sha sha = sha_begin();
    sha_add(&sha, "walloc model 1\n", 15);
    for (int part = 0; part < 3; part++) {
        for (int i = 0; i < 8; i++)
            sha_add(&sha, &(u8){(u8)(lengths[part] >> 8 * i)}, 1);
        sha_add(&sha, parts[part], lengths[part]);
    }
    for (u64 i = 0; i < model->tensor_count; i++) {        /* sorted by name */
        sha_add(&sha, model->tensors[i].name, strlen(model->tensors[i].name) + 1);
        sha_add(&sha, model->body + model->tensors[i].begin, model->tensors[i].end - model->tensors[i].begin);
    }
    sha_end(&sha, model->identity);
}

static u8 *base64(const char *text, u64 *size) {
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    u64 length = strspn(text, digits), group = 0;
    u8 *out = allocate(length, 1);
    *size = 0;
    for (u64 i = 0; i < length; i++) {
        group = group << 6 | (u64)(strchr(digits, text[i]) - digits);
        if (i % 4)
            out[(*size)++] = (u8)(group >> (6 - 2 * (i % 4)));
    }
    require(strlen(text) % 4 == 0 && !strcmp(text + length, &"=="[2 - (4 - length % 4) % 4 % 3]), "8.2, base64");
    return out;
}

static void read_tables(Model *model);                     /* section 7, below */
static void check_tensors(Model *model);                   /* 8.5, 8.7; below, after the networks */

static int by_name(const void *a, const void *b) {         /* strcmp compares bytes as unsigned */
    return strcmp(((const Tensor *)a)->name, ((const Tensor *)b)->name);
}

static Model read_model(const char *path) {
    Model model = {0};
    Bytes file = read_file(path);
    u64 size = little(take(&file, 8), 8), total = 0;
    Json json = parse(take(&file, size), size);
    char config[512];
    model.body = file.data + file.at;
    model.tensors = allocate(json.count, sizeof(Tensor));
    for (u64 i = 0; i < json.count; i++) {                 /* 8.1 */
        char *mark = strrchr(json.items[i].path, 1), number[2] = "0";
        if (!mark || strcmp(mark + 1, "dtype") || !strncmp(json.items[i].path, "__metadata__\1", 13))
            continue;
        Tensor *tensor = &model.tensors[model.tensor_count++];
        u64 bytes = 4;
        *mark = 0;
        tensor->name = json.items[i].path;
        char *shape = join(tensor->name, "shape"), *offsets = join(tensor->name, "data_offsets");
        for (const Item *item; tensor->rank < 4 && (item = get(&json, shape, number)); number[0]++) {
            i64 length = integer(item);
            require(0 < length && length <= 1 << 20 && bytes < (u64)1 << 40, "8.5, shape");
            bytes *= tensor->shape[tensor->rank++] = (u64)length;
        }
        tensor->begin = (u64)integer(get(&json, offsets, "0"));
        tensor->end = (u64)integer(get(&json, offsets, "1"));
        require(!strcmp(json.items[i].text, "F32") && tensor->end - tensor->begin == bytes, "8.1, type or shape");
        require(tensor->end <= file.size - file.at && (total += bytes) <= file.size - file.at, "8.1, overlaps");
    }
    for (u64 i = 0, at = 0; at < file.size - file.at; at = model.tensors[i].end)   /* each begins where another ends */
        for (i = 0; i == model.tensor_count || model.tensors[i].begin != at; i++)
            require(i < model.tensor_count, "8.1, holes or overlaps");
    qsort(model.tensors, model.tensor_count, sizeof(Tensor), by_name);
    const char *in = "__metadata__";
    const Item *format = get(&json, in, "walloc_ref.format"), *fields = get(&json, in, "walloc_ref.config");
    const Item *tables = get(&json, in, "walloc_ref.entropy"), *id = get(&json, in, "walloc_ref.id");
    const Item *steps = get(&json, in, "walloc_ref.steps");
    require(format && !strcmp(format->text, "1") && fields, "8.2, metadata");
    u64 config_size = (u64)read_config(&model, fields->text, config);
    if (tables)
        model.tables = base64(tables->text, &model.tables_size);
    u64 planes = (u64)model.planes, weights_size = planes;
    model.step_weights = steps ? base64(steps->text, &weights_size) : memset(allocate(planes, 1), 128, planes);
    require(weights_size == planes, "8.2, step weights");
    read_tables(&model);
    check_tensors(&model);
    identify(&model, config, config_size);
    char digits[65] = "";
    for (int i = 0; i < 32; i++)
        snprintf(digits + 2 * i, 3, "%02x", model.identity[i]);
    require(!id || !strcmp(id->text, digits), "8.2, walloc_ref.id");
    return model;
}

/* ---- 7 entropy coding: >> of a negative number rounds down, as every compiler has it ------------------------------ */
typedef struct { int kind, source, dy, dx; } Tap;
struct Plane { int taps, hidden; Tap *tap; i64 *units, *biases, *outputs; };       /* units (taps, 2 + hidden) */

static i64 clamp(i64 v, i64 low, i64 high) { return v < low ? low : v > high ? high : v; }
static i64 *take_integers(Bytes *in, u64 count, int size) {                        /* signed, little-endian */
    i64 *out = allocate(count, sizeof *out);
    for (u64 i = 0; i < count; i++)
        out[i] = (i64)(take_little(in, size) << (64 - 8 * size)) >> (64 - 8 * size);
    return out;
}

static void put(u8 **out, i64 value, int size) {
    for (; size--; value >>= 8)
        *(*out)++ = (u8)value;
}

static u8 *default_tables(int D, int bits, u64 *size) {                            /* 7.16 */
    static const int near[5][3] = {{0, -1, 4096}, {-1, 0, 4096}, {-1, -1, 2048}, {-1, 1, 2048}, {0, 0, 4096}};
    u64 states = 16 * (748 + 11 * (u64)D), taps = 5 * (u64)D - 1;
    u8 *start = allocate(*size = 8 + 2 * (u64)D + 3 * taps + 4 * taps + 8 * (u64)D + 2 * states + 1024, 1);
    u8 *out = start;
    put(&out, 'W' | 'E' << 8 | 'T' << 16 | '1' << 24, 4), put(&out, D, 2), put(&out, bits, 2);
    for (int part = 0; part < 3; part++)
        for (int c = 0; c < D; c++) {
            put(&out, c ? 5 : 4, part == 0 ? 2 : 0);
            for (int i = 0; i < (c ? 5 : 4); i++) {
                put(&out, (c - (i == 4)) | (49 + (near[i][0] + 3) * 7 + near[i][1] + 3) << 16, part == 1 ? 3 : 0);
                put(&out, near[i][2] / (c ? 4 : 3) << 16, part == 2 ? 4 : 0);
            }
            put(&out, (i64)4096 << 32, part == 2 ? 8 : 0);
        }
    for (u64 i = 0; i < states + 512; i++)
        put(&out, i < states ? 2048 * 16 : 320, 2);
    return start;
}

static void read_tables(Model *model) {                                            /* 7.2, 7.3 */
    int D = model->planes, L = (1 << (model->field[BITS] - 1)) - 1;
    if (!model->tables)
        model->tables = default_tables(D, (int)model->field[BITS], &model->tables_size);
    Bytes in = {model->tables, model->tables_size, 0};
    require(!memcmp(take(&in, 4), "WET1", 4), "7.2, tables");
    require((int)take_little(&in, 2) == D && (i64)take_little(&in, 2) == model->field[BITS], "7.3, another model's tables");
    model->plane = allocate((u64)D, sizeof *model->plane);
    for (int c = 0; c < D; c++) {
        struct Plane *plane = &model->plane[c];
        plane->taps = *take(&in, 1), plane->hidden = *take(&in, 1);
        require(plane->taps <= 160 && plane->hidden <= 62, "7.2, taps or hidden units");
    }
    for (int c = 0; c < D; c++) {
        struct Plane *plane = &model->plane[c];
        plane->tap = allocate((u64)plane->taps, sizeof(Tap));
        for (int i = 0; i < plane->taps; i++) {
            int source = (int)take_little(&in, 2), code = *take(&in, 1);
            Tap tap = plane->tap[i] = (Tap){code / 49, source, code % 49 / 7 - 3, code % 7 - 3};
            require(tap.kind < 2 && (source < c || (source == c && (tap.dy < 0 || (tap.dy == 0 && tap.dx < 0)))), "7.2, tap");
        }
    }
    for (int c = 0; c < D; c++) {
        struct Plane *plane = &model->plane[c];
        int columns = 2 + plane->hidden;
        i64 out[2] = {0};
        plane->units = take_integers(&in, (u64)plane->taps * (u64)columns, 2);
        plane->biases = take_integers(&in, (u64)columns, 4);
        plane->outputs = take_integers(&in, 2 * (u64)plane->hidden, 2);
        for (int i = 0; i < 2 * plane->hidden; i++)
            out[i % 2] += 32767 * llabs(plane->outputs[i]);
        for (int u = 0; u < columns; u++) {
            i64 total = llabs(plane->biases[u]);
            for (int i = 0; i < plane->taps; i++)
                total += (plane->tap[i].kind ? 1023 : 16 * L) * llabs(plane->units[i * columns + u]);
            require(total < 2147418112 && out[0] < 2147418112 && out[1] < 2147418112, "7.3, sums beyond 32 bits");
        }
    }
    model->states = in.data + in.at;
    for (u64 i = 0; i < 16 * (748 + 11 * (u64)D); i++)
        require(take_little(&in, 2) >= 16, "7.3, state");
    model->mixers = in.data + in.at;
    take(&in, 1024);
    require(in.at == in.size, "7.3, tables too long");
}

static i64 squash[4095], stretch[4096];                                            /* 7.5; squash[x + 2047] */
static void fill_tables(void) {
    i64 e = 1 << 24, x = 0;
    for (int i = 0; i < 2048; i++, e = e * 16842880 >> 24) {
        squash[2047 + i] = clamp(65536 * e / (e + (1 << 24)), 0, 65504);
        squash[2047 - i] = 65536 - squash[2047 + i];
    }
    for (int q = 0; q < 4096; stretch[q++] = x - 2047)
        while (x < 4094 && squash[x + 1] <= 16 * q + 8)
            x++;
}

static i64 level(i64 v, int per_octave, i64 first, i64 count) {
    int e = 0;
    for (; v >> (e + 1); e++) {}
    return clamp(per_octave * e + (v * per_octave >> e) % per_octave - first, 0, count - 1);
}

typedef struct {                                           /* of one slice */
    const Model *model;
    Bytes in;
    u64 span, value, low;                                  /* 7.12 */
    i64 *p, *n, weights[8][16][4];                         /* 7.9 */
    i64 *values[2], h, w;                                  /* 7.6: symbols and deviations (D, h, w), in sixteenths */
} Coder;

static void next_byte(Coder *coder) {                      /* three zeros follow the payload */
    require(coder->in.at < coder->in.size + 3, "7.13, payload too short");
    coder->value = coder->value << 8 | (coder->in.at < coder->in.size ? coder->in.data[coder->in.at] : 0);
    coder->in.at++;
}

static int decide_with(Coder *coder, i64 p) {              /* 7.12 */
    u64 bound = coder->span * (u64)p >> 16;
    int bit = coder->value < bound;
    coder->low += bit ? 0 : bound;
    coder->value -= bit ? 0 : bound;
    for (coder->span = bit ? bound : coder->span - bound; coder->span < 1 << 24; coder->span <<= 8) {
        coder->low = (coder->low & 0xFFFFFF) << 8;
        next_byte(coder);
    }
    return bit;
}

static int decide(Coder *coder, i64 mixer, const i64 at[4], i64 node) {            /* 7.9 */
    i64 *weights = coder->weights[mixer][node], inputs[4], dot = 0;
    for (int k = 0; k < 4; k++)
        dot += weights[k] * (inputs[k] = stretch[coder->p[16 * at[k] + node] >> 10]);
    i64 p = squash[clamp(dot >> 16, -2047, 2047) + 2047];
    i64 bit = decide_with(coder, p), error = 65536 * bit - p;
    for (int k = 0; k < 4; k++) {
        i64 *state = &coder->p[16 * at[k] + node], *n = &coder->n[16 * at[k] + node];
        weights[k] = clamp(weights[k] + ((inputs[k] * error + (1 << 18)) >> 19), -(1 << 20), 1 << 20);
        *state += ((bit << 22) - *state) * (655360 / (10 * *n + 16)) >> 16;
        *state = clamp(*state, 256, (1 << 22) - 256);
        *n = clamp(*n + 1, 0, 255);
    }
    return (int)bit;
}

static i64 decode_residual(Coder *coder, i64 mixer, const i64 at[4], const i64 room[2]) {          /* 7.10 */
    if (!decide(coder, mixer, at, 0))
        return 0;
    int negative = decide(coder, mixer, at, 1), e = 0;
    i64 value = 1;
    while (decide(coder, mixer, at, 2 + clamp(e, 0, 6)))
        require(1 << ++e <= room[negative], "7.10, residual too large");
    for (int known = 0; known < e; known++) {
        i64 node = known == 0 ? (e == 1 ? 9 : e == 2 ? 10 : 13) : (e == 2 ? 11 : 14) + value % 2;
        value = 2 * value + (known > 1 ? decide_with(coder, 32768) : decide(coder, mixer, at, node));
    }
    require(value <= room[negative], "7.10, residual too large");
    return negative ? -value : value;
}

static i64 neighbour(const Coder *coder, i64 c, i64 y, i64 x, Tap tap) {           /* 7.6 */
    i64 h = coder->h, w = coder->w, y1 = clamp(y + tap.dy, 0, h - 1), x1 = clamp(x + tap.dx, 0, w - 1);
    if (tap.source == c && y1 * w + x1 >= y * w + x) {
        if (y == 0 && x == 0)
            return 0;
        x1 = y > 0 ? 0 : x - 1;
        y1 = y > 0 ? y - 1 : 0;
    }
    return coder->values[tap.kind][(tap.source * h + y1) * w + x1];
}

static i64 decode_symbol(Coder *coder, int c, i64 y, i64 x) {                      /* 7.7, 7.8, 7.11 */
    const struct Plane *plane = &coder->model->plane[c];
    i64 sums[64], total[2], L = (1 << (coder->model->field[BITS] - 1)) - 1, columns = 2 + plane->hidden;
    memcpy(sums, plane->biases, (size_t)columns * sizeof *sums);
    for (int i = 0; i < plane->taps; i++) {
        i64 value = neighbour(coder, c, y, x, plane->tap[i]);
        for (i64 u = 0; u < columns; u++)
            sums[u] += plane->units[i * columns + u] * value;
    }
    total[0] = sums[0] * 16, total[1] = sums[1] * 16;
    for (int i = 0; i < 2 * plane->hidden; i++)
        total[i % 2] += clamp(sums[2 + i / 2] >> 8, 0, 32767) * plane->outputs[i];
    i64 linear = (sums[0] + 2048) >> 12, mean = clamp((total[0] + 32768) >> 16, -16 * L, 16 * L);
    i64 scale = clamp(total[1] >> 12, 1, 16383), expected = (mean + 8) >> 4, fraction = mean - 16 * expected;
    i64 flip = fraction < 0 ? -1 : 1, side[2], d[4], size = level(scale, 4, 8, 44), D = coder->model->planes;
    for (int i = 0; i < 4; i++) {
        Tap tap = {1, c, i ? -1 : 0, i == 0 || i == 2 ? -1 : i == 3};              /* W, N, NW, NE */
        d[i] = neighbour(coder, c, y, x, tap);
        tap.kind = 0;
        i64 off = flip * (neighbour(coder, c, y, x, tap) - mean), margin = 1 + (scale >> 4);
        if (i < 2)
            side[i] = 1 + (off > margin) - (off < -margin);
    }
    i64 activity = level(clamp(2 * d[0] + 2 * d[1] + d[2] + d[3], 1, INT64_MAX), 2, 4, 12);
    i64 at[4] = {size * 5 + ((flip * fraction + 1) >> 1), 220 + c * 11 + (size >> 2),
                 220 + 11 * D + activity * 11 + (size >> 2), 220 + 11 * D + 132 + (side[0] * 3 + side[1]) * 44 + size};
    i64 k = expected + flip * decode_residual(coder, size / 6, at, (i64[]){L - flip * expected, L + flip * expected});
    u64 here = (u64)((c * coder->h + y) * coder->w + x);
    coder->values[0][here] = 16 * k;
    coder->values[1][here] = clamp(llabs(16 * k - linear), 0, 1023);
    return k;
}

/* 7.15; the slice begins at row `top` and has `rows` rows, fewer at the end of the image; symbols are i16 (D, all, w). */
static void decode_slice(const Model *model, Bytes payload, u8 *symbols, u64 all, u64 w, u64 top, u64 rows) {
    static const int strength[] = {0, 1, 2, 3, 5, 7, 11, 15, 23, 31, 47, 63, 95, 127, 191, 255};
    u64 D = (u64)model->planes, states = 16 * (748 + 11 * D);
    Coder coder = {.model = model, .in = payload, .span = 0xFFFFFFFF, .h = (i64)(rows < all - top ? rows : all - top)};
    coder.w = (i64)w;
    coder.p = allocate(states, sizeof *coder.p);
    coder.n = allocate(states, sizeof *coder.n);
    for (u64 i = 0; i < states; i++) {
        coder.p[i] = (i64)(little(model->states + 2 * i, 2) / 16) << 10;
        coder.n[i] = strength[model->states[2 * i] % 16];
    }
    for (int i = 0; i < 512; i++)
        coder.weights[i / 64][i / 4 % 16][i % 4] = 64 * (int16_t)little(model->mixers + 2 * i, 2);
    coder.values[0] = allocate(D * rows * w, sizeof(i64));
    coder.values[1] = allocate(D * rows * w, sizeof(i64));
    fill_tables();
    for (int i = 0; i < 4; i++)
        next_byte(&coder);
    require(coder.value < coder.span, "7.13, first bytes");
    for (int c = 0; c < (int)D; c++)
        for (i64 y = 0; y < coder.h; y++) {
            u8 *out = symbols + 2 * (((u64)c * all + top + (u64)y) * w);
            for (i64 x = 0; x < coder.w; x++)
                put(&out, decode_symbol(&coder, c, y, x), 2);
        }
    require(coder.in.at == coder.in.size + 3, "7.13, payload too long");
    require(coder.value < 1 << 24 && (coder.low + coder.value) % (1 << 24) == 0, "7.13, last byte");
    free(coder.p), free(coder.n), free(coder.values[0]), free(coder.values[1]);
}

/* ---- 6 quantiser: symbols to latents ----------------------------------------------------------------------------- */
static double latent(int k, int bits) {                    /* 6.4: s·sqrt(2)·u, erfc(u) = 1 - |k|/M by Newton's method */
    double last = (1 << (bits - 1)) - 1, range = last + 0.499, tail = (last - abs(k) + 0.499) / range, u = 0;
    for (int i = 0; i < 60; i++)                          /* rises to the root without overshooting: erfc is convex */
        u += (erfc(u) - tail) * exp(u * u) * 0.88622692545275801;                  /* sqrt(pi)/2 */
    return (k < 0 ? -u : k == 0 ? 0 : u) * last / 1.85 * sqrt(2);
}

/* ---- 9 networks: arrays are (channels, h, w), 8 bytes a value ---------------------------------------------------- */
typedef struct { const Model *model; const char *prefix; int h, w; u64 positions; } Place;

static double *conv(const Place *at, const char *layer, const double *x, int inputs, int outputs, int rank, int side) {
    double *weight = weights(at->model, name("%s%s.weight", at->prefix, layer), rank, outputs, inputs, side);
    double *bias = weights(at->model, name("%s%s.bias", at->prefix, layer), 1, outputs, 0, 0);
    double *out = doubles((u64)outputs * at->positions);
    int h = at->h, w = at->w, taps = side * side;
    for (int o = 0; o < outputs && at->positions; o++) {   /* 9.2; with one tap 5.1, 5.2 and the affine maps of 9.6 */
        double *y = out + (u64)o * at->positions;
        for (u64 p = 0; p < at->positions; p++)
            y[p] = bias[o];
        for (int n = 0; n < inputs * taps; n++) {
            int down = n % taps / side - side / 2, across = n % taps % side - side / 2;
            double factor = weight[(u64)o * (u64)(inputs * taps) + (u64)n];
            for (int i = down < 0; i < h - (down > 0); i++) {
                const double *from = x + (u64)(n / taps) * at->positions + (i64)(i + down) * w + across;
                double *to = y + (u64)i * (u64)w;
                for (int j = across < 0; j < w - (across > 0); j++)
                    to[j] += factor * from[j];
            }
        }
    }
    free(weight), free(bias);
    return out;
}

static double *norm(const Place *at, const char *layer, const double *x, int channels, int silu) { /* 9.3, 9.4 */
    double *weight = weights(at->model, name("%s%s.weight", at->prefix, layer), 1, channels, 0, 0);
    double *bias = weights(at->model, name("%s%s.bias", at->prefix, layer), 1, channels, 0, 0);
    double *out = doubles((u64)channels * at->positions);
    u64 count = (u64)channels / 32 * at->positions;
    for (u64 first = 0; first < 32 * count; first += count) {
        double mean = 0, variance = 0;
        for (u64 i = first; i < first + count; i++)
            mean += x[i] / (double)count;
        for (u64 i = first; i < first + count; i++)
            variance += (x[i] - mean) * (x[i] - mean) / (double)count;
        for (u64 i = first; i < first + count; i++) {
            double y = weight[i / at->positions] * (x[i] - mean) / sqrt(variance + 1e-6) + bias[i / at->positions];
            out[i] = silu ? y / (1 + exp(-y)) : y;
        }
    }
    free(weight), free(bias);
    return out;
}

static double *add(double *x, double *y, u64 count) {      /* x + y, in x; frees y */
    for (u64 i = 0; i < count; i++)
        x[i] += y[i];
    free(y);
    return x;
}

static double *residual(const Place *at, const char *block, double *x, int n) {    /* 9.5; frees x, as all below do */
    double *y = NULL;
    for (int part = 1; part <= 2; part++) {
        double *t = norm(at, name("%s.norm%d", block, part), y ? y : x, n, 1);
        free(y);
        y = conv(at, name("%s.conv%d", block, part), t, n, n, 4, 3);
        free(t);
    }
    return add(y, x, (u64)n * at->positions);
}

static double *attention(const Place *at, const char *block, double *x, int n) {   /* 9.6 */
    u64 P = at->positions, N = (u64)n;
    double *t = norm(at, name("%s.group_norm", block), x, n, 0), *score = doubles(P), *mixed = doubles(N * P);
    double *q = conv(at, name("%s.to_q", block), t, n, n, 2, 1), *k = conv(at, name("%s.to_k", block), t, n, n, 2, 1);
    double *v = conv(at, name("%s.to_v", block), t, n, n, 2, 1);
    for (u64 p = 0; p < P; p++) {
        double largest = -INFINITY, total = 0;
        memset(score, 0, P * sizeof *score);
        for (u64 i = 0; i < N; i++)
            for (u64 r = 0; r < P; r++)
                score[r] += q[i * P + p] * k[i * P + r];
        for (u64 r = 0; r < P; r++)
            largest = fmax(largest, score[r]);
        for (u64 r = 0; r < P; r++)
            total += score[r] = exp((score[r] - largest) / sqrt(n));
        for (u64 i = 0; i < N; i++)
            for (u64 r = 0; r < P; r++)
                mixed[i * P + p] += score[r] / total * v[i * P + r];
    }
    double *out = conv(at, name("%s.to_out.0", block), mixed, n, n, 2, 1);
    free(t), free(score), free(mixed), free(q), free(k), free(v);
    return add(out, x, N * P);
}

static double *network(const Place *at, double *x, int inputs, int n, int outputs) {               /* 9.7, 9.8, 9.9 */
    static const char *const blocks[2][6] = {
        {"mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1", "up_blocks.0.resnets.0",
         "up_blocks.0.resnets.1", "up_blocks.0.resnets.2"},
        {"down_blocks.0.resnets.0", "down_blocks.0.resnets.1", "mid_block.resnets.0", "mid_block.attentions.0",
         "mid_block.resnets.1"}};
    int encoder = at->prefix[0] == 'e';
    double *y = conv(at, "conv_in", x, inputs, n, 4, 3), *t;
    free(x);
    for (int i = 0; i < 6 - encoder; i++)
        y = (strstr(blocks[encoder][i], "attentions") ? attention : residual)(at, blocks[encoder][i], y, n);
    t = norm(at, "conv_norm_out", y, n, 1);
    free(y);
    y = conv(at, "conv_out", t, n, outputs, 4, 3);
    free(t);
    return y;
}

static double *decode_latents(const Model *model, double *z, int h, int w) {       /* latents to subbands */
    int D = (int)model->field[LATENT_DIM], K = model->bands;
    Place at = {model, model->field[ARCHITECTURE] == NONLINEAR ? "decoder.1." : "", h, w, (u64)h * (u64)w};
    if (model->field[ARCHITECTURE] == NONLINEAR)
        return network(&at, z, D, (int)model->field[ND], K);
    double *bands = doubles((u64)K * at.positions);
    for (int s = 0; s < model->field[STAGES]; s++) {                               /* 5.2, 5.3 */
        const char *layer = model->field[ARCHITECTURE] == LINEAR ? "decoder.1" : name("decoders.%d", s);
        add(bands, conv(&at, layer, z + (u64)s * (u64)D * at.positions, D, K, 4, 1), (u64)K * at.positions);
    }
    free(z);
    return bands;
}

static void check_tensors(Model *model) {                                          /* 8.5, 8.7 */
    int D = (int)model->field[LATENT_DIM], K = model->bands, stages = model->field[ARCHITECTURE] == RESIDUAL;
    Place at = {model, "", 0, 0, 0}, network_at = {model, "encoder.0.", 0, 0, 0};
    model->checking = 1;
    free(decode_latents(model, doubles(0), 0, 0));
    for (int s = 0; s < model->field[STAGES] && model->field[LIGHTWEIGHT]; s++)
        free(conv(&at, stages ? name("encoders.%d", s) : "encoder.0", NULL, K, D, 4, 1));
    if (!model->field[LIGHTWEIGHT])
        free(network(&network_at, doubles(0), K, (int)model->field[NE], D));
    model->checking = 0;
    for (u64 i = 0; i < model->tensor_count; i++) {
        require(model->tensors[i].expected, "8.5, surplus tensor");
        for (u64 at_byte = model->tensors[i].begin; at_byte < model->tensors[i].end; at_byte += 4)
            require((little(model->body + at_byte, 4) >> 23 & 255) != 255, "8.7, a value that is not finite");
    }
}

/* ---- 4 wavelet packet synthesis ---------------------------------------------------------------------------------- */
static const double TAPS[2][5] = {                         /* 4.1: g and h */
    {-0.7884856164055829, 0.41809227322161724, 0.04068941760916406, -0.06453888262869706},
    {0.8526986790088938, 0.37740285561283066, -0.11062440441843718, -0.023849465019556843, 0.03782845550726404}};

static void merge(const double *low, const double *high, i64 half, i64 step, double *x, i64 x_step) { /* 4.3 */
    i64 n = 2 * half;
    for (i64 i = 0; i < n; i++) {
        double sum = 0;
        for (i64 m = -4; m <= 4; m++) {
            i64 at = ((i + m) % n + n) % n;
            sum += (m % 2 ? 1 : -1) * TAPS[at % 2][llabs(m)] * (at % 2 ? high : low)[at / 2 * step];
        }
        x[i * x_step] = sum;
    }
}

static double *synthesise(const Model *model, double *bands, i64 h, i64 w) {       /* (K, h, w) to (C, h·m, w·m) */
    for (i64 count = model->bands; count > model->field[CHANNELS]; count /= 4, h *= 2, w *= 2) {          /* 4.6, 4.7 */
        double *out = doubles((u64)count * h * w), *columns = doubles((u64)4 * h * w);
        for (i64 band = 0; band < count; band += 4) {
            const double *in = bands + band * h * w;
            for (int a = 0; a < 2; a++)                                            /* down: 0 with 1, 2 with 3 (4.4) */
                for (i64 j = 0; j < w; j++)
                    merge(in + 2 * a * h * w + j, in + (2 * a + 1) * h * w + j, h, w, columns + 2 * a * h * w + j, w);
            for (i64 i = 0; i < 2 * h; i++)                                        /* across */
                merge(columns + i * w, columns + (2 * h + i) * w, w, 1, out + band * h * w + i * 2 * w, 1);
        }
        free(bands), free(columns);
        bands = out;
    }
    return bands;
}

/* ---- 10 container ------------------------------------------------------------------------------------------------ */
#define MAX_SAMPLES ((u64)1 << 30)                                                 /* 12.4 */
#define MAX_SYMBOLS_PER_BYTE 11360                                                 /* 12.5 */

typedef struct {
    int format, J, bits;                                  /* format 0 u8, 1 u16, 2 s16, 5 f32 */
    double mean, gain;                                     /* of f32 (3.10) */
    u64 channels, height, width, planes, slice_size, h, w, slices;
    u64 step, weighted, window, context;                  /* 6.7, 6.8, 9.11 */
    const u8 *identity, *hash, *sample_hash;
    const u8 **payload;
    u64 *length, *index, uncertain;                        /* of slices; of CERTIFICATE */
} Stream;

static void read_head(Stream *s, Bytes in) {                                       /* 10.5, 10.6 */
    int kind = *take(&in, 1);
    s->format = *take(&in, 1);
    require(kind == 0 && (s->format <= 2 || s->format == 5), "10.5, kind and format of images");      /* and 10.7 */
    s->channels = varint(&in, 1, 4096, "10.6, channels");
    s->height = varint(&in, 1, ((u64)1 << 40) - 1, "10.6, size");
    s->width = varint(&in, 1, ((u64)1 << 40) - 1, "10.6, size");
    if (s->format == 5) {
        u64 bits[2] = {take_little(&in, 8), take_little(&in, 8)};
        memcpy(&s->mean, bits, 8);
        memcpy(&s->gain, bits + 1, 8);
        require(isfinite(s->mean) && isfinite(s->gain) && s->gain >= 0, "10.6, mean and gain");
    }
    s->identity = take(&in, 16);
    s->J = *take(&in, 1);
    s->planes = varint(&in, 1, 1 << 18, "10.6, D");
    s->bits = *take(&in, 1);
    s->step = take_little(&in, 4);
    s->weighted = *take(&in, 1);
    s->window = varint(&in, 0, ((u64)1 << 40) - 1, "10.6, window");
    s->context = s->window ? varint(&in, 0, s->window, "10.6, context") : 0;
    require(s->step >= 1 << 6 && s->step <= 1 << 26 && s->weighted <= 1, "10.6, step and weighted");
    require(s->window == 0 || s->window >= 8, "10.6, window");
    s->slice_size = varint(&in, 1, ((u64)1 << 40) - 1, "10.6, slice_size");
    s->hash = take(&in, 8);
    require(in.at == in.size, "10.6, something follows HEAD's last field");
    require(s->J <= 10 && 2 <= s->bits && s->bits <= 8, "10.6, J and b");
    require(s->height <= MAX_SAMPLES && s->width <= MAX_SAMPLES / s->height
            && s->channels <= MAX_SAMPLES / (s->height * s->width), "12.4, samples");
    s->h = ((s->height - 1) >> s->J) + 1;
    s->w = ((s->width - 1) >> s->J) + 1;
    require(s->slice_size <= s->h, "10.6, slice_size");
    s->slices = (s->h - 1) / s->slice_size + 1;
}

static void read_certificate(Stream *s, Bytes in) {                                /* 10.10 */
    u64 samples = s->channels * s->height * s->width;
    s->sample_hash = take(&in, 32);
    s->uncertain = varint(&in, 0, in.size - in.at, "10.10, count");
    s->index = allocate(s->uncertain, sizeof *s->index);
    for (u64 i = 0; i < s->uncertain; i++) {
        s->index[i] = varint(&in, 0, samples, "10.10, index") + (i ? s->index[i - 1] + 1 : 0);
        require(s->index[i] < samples, "10.10, index");
    }
    require(in.at == in.size, "10.10, something follows");
}

static Stream read_stream(Bytes in) {
    Stream s = {0};
    int seen[256] = {0}, tag;
    u64 start, length;
    require(!memcmp(take(&in, 5), "\x89WLC\1", 5), "10.1, magic bytes or version");
    for (;;) {
        start = in.at;
        tag = *take(&in, 1);
        require((tag == 1) == !seen[1], "10.3, HEAD comes first, once");
        length = varint(&in, 0, INT64_MAX, "10.2, length");
        if (tag == 2)
            break;
        Bytes payload = {take(&in, length), length, 0};
        u32 crc = crc32(in.data + start, in.at - start);
        require(take_little(&in, 4) == crc, "10.2, CRC");
        require(tag == 1 || tag >= 0x80, "10.4, unknown critical section");
        require(!seen[tag] || tag > 0x84 || tag == 0x80, "10.3, section repeated");
        seen[tag] = 1;
        if (tag == 1)
            read_head(&s, payload);
        else if (tag == 0x81)
            read_certificate(&s, payload);
    }
    require(length == in.size - in.at, "10.8, length");
    require(varint(&in, 0, INT64_MAX, "") == s.slices, "10.8, count");
    require(s.slices <= (in.size - in.at) / 5, "10.8, count");
    s.payload = allocate(s.slices, sizeof *s.payload);
    s.length = allocate(s.slices, sizeof *s.length);
    Bytes table = in;
    for (u64 i = 0; i < s.slices; i++) {
        s.length[i] = varint(&in, 0, INT64_MAX, "");
        take(&in, 4);
    }
    u32 crc = crc32(in.data + start, in.at - start);
    require(take_little(&in, 4) == crc, "10.8, CRC of the table");
    for (u64 i = 0; i < s.slices; i++) {
        s.payload[i] = take(&in, s.length[i]);
        varint(&table, 0, INT64_MAX, "");
        require(take_little(&table, 4) == crc32(s.payload[i], s.length[i]), "10.8, CRC of a slice");
    }
    require(in.at == in.size, "10.3, something follows SLICES");
    return s;
}

static u8 *decode_symbols(const Model *model, const Stream *s) {                   /* i16 (D, h, w) */
    require(!memcmp(s->identity, model->identity, 16), "8.8, another model");
    require(s->J == model->field[LEVELS] && s->bits == model->field[BITS], "10.7, J or b");
    require(s->planes == (u64)model->planes, "10.7, D");
    require(s->channels == 1 || s->channels == (u64)model->field[CHANNELS], "10.7, channels");
    require(s->window == 0 || model->field[ARCHITECTURE] == NONLINEAR, "10.7, window");
    for (u64 i = 0; i < s->slices; i++) {                  /* 12.5, before anything is allocated */
        u64 rows = i + 1 < s->slices ? s->slice_size : s->h - i * s->slice_size;
        require(rows * s->w <= MAX_SYMBOLS_PER_BYTE * s->length[i] / s->planes, "12.5, slice too short");
    }
    u64 count = s->planes * s->h * s->w;
    u8 *symbols = allocate(count, 2);
    for (u64 i = 0; i < s->slices; i++)
        decode_slice(model, (Bytes){s->payload[i], s->length[i], 0}, symbols, s->h, s->w, i * s->slice_size, s->slice_size);
    require(sha_starts_with(symbols, 2 * count, s->hash, 8), "10.9, symbol hash");
    return symbols;
}

/* ---- steps and windows ------------------------------------------------------------------------------------------- */
static double plane_step(const Model *model, const Stream *s, u64 plane) {         /* 6.7, 6.8 */
    double step = (double)s->step / 65536;
    return s->weighted && step > 1 ? 1 + (step - 1) * model->step_weights[plane] / 128 : step;
}

static u64 edge(u64 n, u64 window, u64 i) {                                        /* 9.11: where window i begins */
    u64 count = window ? (n + window / 2) / window : 1;
    return n * i / (count ? count : 1);
}

static double *decode_windows(const Model *model, const Stream *s, double *z) {    /* (D, h, w) to (K, h, w); z is freed */
    u64 h = s->h, w = s->w, W = s->window, c = s->context, D = s->planes, K = (u64)model->bands;
    if (!W)
        return decode_latents(model, z, (int)h, (int)w);
    double *out = doubles(K * h * w);
    for (u64 a = 0, top, bottom; (top = edge(h, W, a)) < h; a++)
        for (u64 b = 0, left, right; (left = edge(w, W, b)) < w; b++) {
            bottom = edge(h, W, a + 1), right = edge(w, W, b + 1);
            u64 y0 = top > c ? top - c : 0, x0 = left > c ? left - c : 0;
            u64 tall = (bottom + c < h ? bottom + c : h) - y0, wide = (right + c < w ? right + c : w) - x0;
            double *seen = doubles(D * tall * wide);
            for (u64 d = 0; d < D; d++)
                for (u64 i = 0; i < tall; i++)
                    memcpy(seen + (d * tall + i) * wide, z + (d * h + y0 + i) * w + x0, wide * sizeof *z);
            double *part = decode_latents(model, seen, (int)tall, (int)wide);
            for (u64 k = 0; k < K; k++)
                for (u64 i = top; i < bottom; i++)
                    memcpy(out + (k * h + i) * w + left, part + (k * tall + i - y0) * wide + left - x0,
                           (right - left) * sizeof *z);
            free(part);
        }
    free(z);
    return out;
}

static const int SAMPLE_BYTES[] = {1, 2, 2, 0, 0, 4};                              /* 3.1 */
static const char *const SAMPLE_TYPE[] = {"|u1", "<u2", "<i2", "", "", "<f4"};

/* ---- samples ----------------------------------------------------------------------------------------------------- */
static u8 *decode_samples(const Model *model, Stream *s) {                         /* (H, W, C'), little-endian */
    u8 *symbols = decode_symbols(model, s);
    double *z = doubles(s->planes * s->h * s->w), table[256];
    for (int k = -127; k < 128; k++)
        table[k + 128] = abs(k) < 1 << (s->bits - 1) ? latent(k, s->bits) : 0;
    for (u64 i = 0; i < s->planes * s->h * s->w; i++)
        z[i] = table[(int16_t)little(symbols + 2 * i, 2) + 128] * plane_step(model, s, i / (s->h * s->w));
    double *x = synthesise(model, decode_windows(model, s, z), (i64)s->h, (i64)s->w);
    u64 tall = s->h * model->m, wide = s->w * model->m, above = (tall - s->height) / 2, left = (wide - s->width) / 2;
    u64 repeated = s->channels < (u64)model->field[CHANNELS] ? (u64)model->field[CHANNELS] : 1;                  /* 3.3 */
    double full = s->format ? 65535 : 255;
    int bytes = SAMPLE_BYTES[s->format], lowest = s->format == 2 ? -32768 : 0;
    u8 *out = allocate(s->height * s->width * s->channels, bytes), *to = out;
    for (u64 i = 0; i < s->height; i++)
        for (u64 j = 0; j < s->width; j++)
            for (u64 c = 0; c < s->channels; c++) {
                double sum = 0;
                for (u64 r = 0; r < repeated; r++)
                    sum += fmin(fmax(x[((c + r) * tall + above + i) * wide + left + j], -0.5), 0.5);        /* 3.6, 3.7 */
                double value = sum / (double)repeated;
                if (s->format == 5) {                                              /* 3.10 */
                    float rounded = (float)(s->gain * value + s->mean);
                    u32 bits;
                    memcpy(&bits, &rounded, 4);
                    put(&to, bits, 4);
                } else
                    put(&to, (i64)fmin(fmax(rint(full * (value + 0.5)), 0), full) + lowest, bytes);      /* 3.8, 3.9 */
            }
    if (s->sample_hash && s->format != 5) {                                        /* 10.10, 10.11 */
        u64 size = (u64)(to - out), step = (u64)bytes;
        u8 *copy = memcpy(allocate(size, 1), out, size);
        for (u64 i = 0; i < s->uncertain; i++)
            memset(copy + s->index[i] * step, 0, step);
        require(sha_starts_with(copy, size, s->sample_hash, 32), "10.11, sample hash");
    }
    return out;
}

/* ---- command line ------------------------------------------------------------------------------------------------ */
static void write_npy(const char *path, const char *type, int rank, const u64 *shape, const void *data, size_t item) {
    char header[128], axes[80] = "";
    u64 count = 1;
    for (int i = 0; i < rank; i++) {
        count *= shape[i];
        snprintf(axes + strlen(axes), sizeof axes - strlen(axes), "%llu, ", (unsigned long long)shape[i]);
    }
    snprintf(header, sizeof header, "{'descr': '%s', 'fortran_order': False, 'shape': (%s), }", type, axes);
    FILE *file = fopen(path, "wb");                        /* a header of 118 bytes: 128 with its prelude */
    if (!file || fprintf(file, "\x93NUMPY\1%c\x76%c%-117s\n", 0, 0, header) != 128 || fwrite(data, item, count, file) != count
        || fclose(file))
        fail(TROUBLE, name("cannot write %s", path));
}

int main(int count, char **words) {
    if (count < 6)
        fail(2, "usage: decoder decode symbols|stream MODEL.safetensors IN.wlc OUT.npy");
    int symbols = !strcmp(words[2], "symbols");
    if (strcmp(words[1], "decode") || (!symbols && strcmp(words[2], "stream")))
        fail(UNSUPPORTED, name("unsupported: %s %s", words[1], words[2]));
    Model model = read_model(words[3]);
    Stream s = read_stream(read_file(words[4]));
    u64 shape[3] = {s.height, s.width, s.channels};
    if (symbols)
        write_npy(words[5], "<i2", 3, (u64[]){s.planes, s.h, s.w}, decode_symbols(&model, &s), 2);
    else
        write_npy(words[5], SAMPLE_TYPE[s.format], 2 + (s.channels > 1), shape, decode_samples(&model, &s),
                  (size_t)SAMPLE_BYTES[s.format]);
    return DONE;
}
