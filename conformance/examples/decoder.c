/* A decoder of .wlc streams in C99, written from SPEC.md; numbers in comments are its clauses. libm and nothing else.
 *
 *     cc -O3 -o decoder decoder.c -lm                      binary64, level decoder
 *     cc -O3 -DBINARY32 -o decoder32 decoder.c -lm         binary32, level decoder-binary32
 *     decoder decode symbols|slice|stream MODEL.safetensors IN OUT.npy [PARAMETERS]
 *
 * The command line is that of the conformance suite (README.md): exit code 0 done, 10 rejected, 11 unsupported. It knows all
 * architectures, of images, audio and volumes. One thread, one process a stream; memory is left to the end of the process
 * where it does not grow with the image. In the order of the data:
 *
 *     bytes, SHA-256, JSON   what a platform has
 *     8 model file           configuration, tensors, identity
 *     7 entropy coding       payload of a slice to symbols, in integers of 32 bits (64 where a comment says so)
 *     6 quantiser            symbols to latents
 *     sums of rows           the one loop where the time goes
 *     9 image networks       latents to subbands; 5.2 and 5.3 as well
 *     11 audio networks
 *     4 synthesis            subbands to the signal
 *     10 container           bytes to slices
 *     3, 11 samples          the signal to samples */

#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <tgmath.h>

enum { DONE = 0, TROUBLE = 1, REJECTED = 10, UNSUPPORTED = 11 };

typedef uint8_t u8;
typedef uint32_t u32;
typedef uint64_t u64;
typedef int16_t i16;
typedef int32_t i32;
typedef int64_t i64;
#ifdef BINARY32
typedef float real;                                        /* 14.1, decoder-binary32 */
#else
typedef double real;                                       /* 2.1 */
#endif

static const char *name(const char *format, ...) {         /* formatted text, good for the next 63 calls */
    static char buffers[64][160];
    static int turn;
    char *out = buffers[++turn % 64];
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

static real *reals(u64 count) { return allocate(count, sizeof(real)); }

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

/* ---- JSON as strictly as 8.1 has it ------------------------------------------------------------------------------ */
typedef struct Json {
    const char *name, *text;                               /* a member's name; a string, or what stands there */
    char type;                                             /* { [ " t f n, and 0 for a number */
    u64 count;
    struct Json *parts;                                    /* of { and [ */
} Json;

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

static u32 four_digits(Bytes *in) {
    u32 value = 0;
    for (int i = 0; i < 4; i++) {
        int c = *take(in, 1);
        int digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 87 : c >= 'A' && c <= 'F' ? c - 55 : -1;
        require(digit >= 0, "8.1, JSON escape");
        value = value << 4 | (u32)digit;
    }
    return value;
}

static u32 escaped(Bytes *in) {                            /* what follows a backslash */
    static const char letters[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
    u8 letter = *take(in, 1);
    const char *at = letter ? strchr(letters, letter) : NULL;
    if (at)
        return (u32)meanings[at - letters];
    require(letter == 'u', "8.1, JSON escape");
    u32 code = four_digits(in);
    if (code < 0xD800 || code >= 0xE000)
        return code;
    require(code < 0xDC00 && *take(in, 1) == '\\' && *take(in, 1) == 'u', "8.1, half a surrogate pair");
    u32 low = four_digits(in);
    require(low >= 0xDC00 && low < 0xE000, "8.1, half a surrogate pair");
    return 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
}

static u32 utf8(Bytes *in, u8 first) {                     /* a character of two to four bytes */
    int more = first >= 0xF0 ? 3 : first >= 0xE0 ? 2 : 1;
    u32 code = first & (0x3FU >> more);
    require(first >= 0xC2 && first <= 0xF4, "8.1, UTF-8");
    for (int i = 0; i < more; i++) {
        u8 next = *take(in, 1);
        require(next >> 6 == 2, "8.1, UTF-8");
        code = code << 6 | (next & 63);
    }
    require(code >= (more == 3 ? 0x10000U : more == 2 ? 0x800U : 0x80U) && code < 0x110000, "8.1, UTF-8");
    require(code < 0xD800 || code >= 0xE000, "8.1, UTF-8");
    return code;
}

/* In UTF-8 again, and U+0000 as C0 80, which nothing else becomes: so a C string holds every text. */
static const char *json_string(Bytes *in) {
    require(accept(in, '"'), "8.1, JSON string");
    u64 size = 64;
    char *out = allocate(size, 1);
    for (u64 n = 0;; ) {
        u8 c = *take(in, 1);
        if (n + 5 > size)
            out = realloc(out, size = 2 * size + 8);
        if (!out)
            fail(TROUBLE, "out of memory");
        out[n] = 0;
        if (c == '"')
            return out;
        require(c >= 32, "8.1, JSON string");
        u32 code = c == '\\' ? escaped(in) : c < 128 ? c : utf8(in, c);
        if (code > 0 && code < 0x80) {
            out[n++] = (char)code;
        } else {
            int more = code >= 0x10000 ? 3 : code >= 0x800 ? 2 : 1;
            out[n++] = (char)((0xF00 >> (more + 1) & 0xFF) | code >> 6 * more);
            while (more--)
                out[n++] = (char)(0x80 | (code >> 6 * more & 63));
        }
    }
}

static u64 digits(const char *text) { return strspn(text, "0123456789"); }
static int is_number(const char *text) {
    text += *text == '-';
    u64 count = digits(text);
    if (!count || (*text == '0' && count > 1))
        return 0;
    text += count;
    if (*text == '.') {
        count = digits(++text);
        text += count;
    }
    if (count && (*text == 'e' || *text == 'E')) {
        text += text[1] == '+' || text[1] == '-' ? 2 : 1;
        count = digits(text);
        text += count;
    }
    return count && !*text;
}

static int by_member(const void *a, const void *b) {
    return strcmp((*(const Json *const *)a)->name, (*(const Json *const *)b)->name);
}

static void require_different(const Json *object) {        /* names of the members, compared without their escapes */
    const Json **sorted = allocate(object->count, sizeof *sorted);
    for (u64 i = 0; i < object->count; i++)
        sorted[i] = &object->parts[i];
    qsort(sorted, object->count, sizeof *sorted, by_member);
    for (u64 i = 1; i < object->count; i++)
        require(strcmp(sorted[i - 1]->name, sorted[i]->name) != 0, "8.1, two members of one name");
    free(sorted);
}

static Json json_value(Bytes *in, int depth) {
    Json value = {0};
    int c = peek(in);
    if (c == '"') {
        value.type = '"';
        value.text = json_string(in);
    } else if (c == '{' || c == '[') {
        value.type = (char)c;
        value.text = "";
        in->at++;
        require(depth <= 8, "8.1, JSON nested too deeply");
        int close = c == '{' ? '}' : ']', empty = accept(in, close);
        u64 room = 0;
        for (int more = !empty; more; more = accept(in, ',')) {
            if (value.count == room)
                value.parts = realloc(value.parts, (room = 2 * room + 8) * sizeof(Json));
            if (!value.parts)
                fail(TROUBLE, "out of memory");
            const char *member = c == '{' ? json_string(in) : "";
            require(c == '[' || accept(in, ':'), "8.1, JSON");
            Json part = json_value(in, depth + 1);
            part.name = member;
            value.parts[value.count++] = part;
        }
        require(empty || accept(in, close), "8.1, JSON");
        if (c == '{')
            require_different(&value);
    } else {
        u64 start = in->at;
        while (in->at < in->size && in->data[in->at] && !strchr(",]} \t\r\n", in->data[in->at]))
            in->at++;
        char *text = allocate(in->at - start + 1, 1);
        memcpy(text, in->data + start, in->at - start);
        int literal = !strcmp(text, "true") || !strcmp(text, "false") || !strcmp(text, "null");
        require(literal || is_number(text), "8.1, JSON value");
        value.text = text;
        value.type = literal ? *text : 0;
    }
    return value;
}

static Json parse(const void *data, u64 size) {
    Bytes in = {data, size, 0};
    Json json = json_value(&in, 1);
    require(json.type == '{', "8.1, JSON object");
    require(peek(&in) < 0, "8.1, something follows the JSON object");
    return json;
}

static const Json *get(const Json *object, const char *member) {
    for (u64 i = 0; i < object->count; i++)
        if (!strcmp(object->parts[i].name, member))
            return &object->parts[i];
    return NULL;
}

static i64 integer(const Json *value) {                    /* without fraction and exponent; none that counts is longer */
    require(value && value->type == 0 && !value->text[strspn(value->text, "-0123456789")], "8.1, an integer");
    return strlen(value->text) < 19 ? strtoll(value->text, NULL, 10) : INT64_MAX;
}

/* ---- 8 model file ------------------------------------------------------------------------------------------------ */
enum { LINEAR = 1, RESIDUAL = 2, NONLINEAR = 4, AUDIO = 8, VOLUME = 16, NETWORKS = 12, ALL = 31 };
enum { LEVELS, ND, NE, ARCHITECTURE, CHANNELS, BITS, LATENT_DIM, LIGHTWEIGHT, STAGES, POST, FIELDS };
static const i64 LONGEST = 999999999999999;                /* 15 digits, for an Ne that does not count (8.3) */
static const struct { const char *name; int bit; } ARCHITECTURES[] = {
    {"LinearCodec2D", LINEAR}, {"ResidualCodec2D", RESIDUAL}, {"Codec2D", NONLINEAR}, {"Codec1D", AUDIO},
    {"LinearCodec3D", VOLUME}};

static const struct { const char *name; int architectures; i64 low, high, absent; } FIELD[FIELDS] = {           /* 8.3 */
    {"J", ALL, 0, 10, 0}, {"Nd", NETWORKS, 1, 8192, 0}, {"Ne", NETWORKS, 1, 8192, 0}, {"architecture", ALL, 0, ALL, 0},
    {"channels", ALL, 1, 4096, 0}, {"latent_bits", ALL, 2, 8, 0}, {"latent_dim", ALL, 1, 4096, 0},
    {"lightweight_encode", NETWORKS, 0, 1, 1}, {"num_stages", RESIDUAL, 1, 64, 1}, {"post_filter", AUDIO, 0, 1, 0}};
typedef struct { const char *name; int expected, rank; u64 shape[5], begin, end; } Tensor;
typedef struct {
    i64 field[FIELDS];
    int axes, audio, bands, planes, m, checking;           /* of space; K, D, 2^J (1.8) */
    Tensor *tensors;
    u64 tensor_count, tables_size;
    const u8 *body, *states, *mixers;
    u8 *tables, *step_weights, identity[32];               /* 7.2, 6.8 */
    struct Plane *plane;                                   /* 7.4 */
} Model;

static float value_at(const Model *model, u64 at) {        /* an f32 of the file */
    u32 bits = (u32)little(model->body + at, 4);
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

/* A tensor's values, to be freed. Where the model is only being checked, there are none: networks then run without
 * positions (8.5). */
static real *weights_of(const Model *model, const char *tensor_name, int rank, const u64 *shape) {
    Tensor *tensor = model->tensors, *end = tensor + model->tensor_count;
    while (tensor < end && strcmp(tensor->name, tensor_name))
        tensor++;
    require(tensor < end && tensor->rank == rank && !memcmp(tensor->shape, shape, (size_t)rank * sizeof *shape),
            name("8.5, %s missing or of another shape", tensor_name));
    tensor->expected = 1;
    u64 count = model->checking ? 0 : (tensor->end - tensor->begin) / 4;
    real *out = reals(count);
    for (u64 i = 0; i < count; i++)
        out[i] = (real)value_at(model, tensor->begin + 4 * i);
    return out;
}

static real *weights(const Model *model, const char *tensor_name, int rank, int outputs, int inputs, int side) {
    u64 s = (u64)side;
    return weights_of(model, tensor_name, rank, (u64[5]){(u64)outputs, (u64)inputs, s, s, s});
}

static char *read_config(Model *model, const char *text) { /* 8.3; gives the canonical one of 8.4 */
    Json json = parse(text, strlen(text));
    const Json *value = get(&json, "architecture");
    int architecture = 0, n = 0;
    for (int i = 0; i < 5 && value && value->type == '"'; i++)
        architecture |= strcmp(value->text, ARCHITECTURES[i].name) ? 0 : ARCHITECTURES[i].bit;
    require(architecture != 0, "8.3, architecture");
    size_t room = 1024 + strlen(text);
    char *canonical = allocate(room, 1);
    for (int f = 0; f < FIELDS; f++) {                     /* in ascending order of their names */
        model->field[f] = FIELD[f].absent;
        if (!(FIELD[f].architectures & architecture))
            continue;
        value = get(&json, FIELD[f].name);
        int flag = f == LIGHTWEIGHT || f == POST, null = f == NE && (!value || value->type == 'n');
        require(value || null, FIELD[f].name);
        require(!flag || value->type == 't' || value->type == 'f', FIELD[f].name);
        i64 found = null ? 0 : f == ARCHITECTURE ? architecture : flag ? value->type == 't' : integer(value);
        require(f == NE ? -LONGEST <= found && found <= LONGEST : FIELD[f].low <= found && found <= FIELD[f].high,
                FIELD[f].name);
        model->field[f] = found;
        const char *form = f == ARCHITECTURE ? "%c\"%s\":\"%s\"" : "%c\"%s\":%s";
        n += snprintf(canonical + n, room - (size_t)n, form, n ? ',' : '{', FIELD[f].name,
                      null ? "null" : found == 0 && !flag ? "0" : value->text);
    }
    canonical[n] = '}';
    model->audio = architecture == AUDIO;
    model->axes = model->audio ? 1 : architecture == VOLUME ? 3 : 2;
    model->m = 1 << model->field[LEVELS];
    i64 bands = model->field[CHANNELS] << (model->axes * model->field[LEVELS]);
    i64 planes = model->field[LATENT_DIM] * model->field[STAGES];
    for (int f = ND; f <= NE && architecture & NETWORKS; f++) {
        i64 width = f == NE && model->field[LIGHTWEIGHT] ? model->field[ND] : model->field[f];
        require(width >= 1 && width <= 8192, "8.3, Ne");
        require(model->audio ? width >= model->field[LATENT_DIM] : width % 32 == 0, "8.3, Nd or Ne");
    }
    require(bands <= 65536 && planes <= 4096, "8.3, bands or planes");
    model->bands = (int)bands;
    model->planes = (int)planes;
    return canonical;
}

static void identify(Model *model, const char *config) {                           /* 8.6 */
    u64 lengths[3] = {strlen(config), model->tables_size, (u64)model->planes};
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

static u8 *base64(const char *text, u64 *size) {                                   /* 8.2 */
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    u64 length = strspn(text, digits), group = 0;
    u8 *out = allocate(length, 1);
    *size = 0;
    for (u64 i = 0; i < length; i++) {
        group = group << 6 | (u64)(strchr(digits, text[i]) - digits);
        if (i % 4)
            out[(*size)++] = (u8)(group >> (6 - 2 * (i % 4)));
    }
    u64 unused = length % 4 == 0 ? 0 : length % 4 == 3 ? 3 : 15;
    require(length % 4 != 1 && !(group & unused), "8.2, unused bits of base64");
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
    const Json *meta = get(&json, "__metadata__");
    require(meta && meta->type == '{', "8.1, metadata");
    for (u64 i = 0; i < meta->count; i++)
        require(meta->parts[i].type == '"', "8.1, metadata are strings");
    model.body = file.data + file.at;
    model.tensors = allocate(json.count, sizeof(Tensor));
    for (u64 i = 0; i < json.count; i++) {                 /* 8.1 */
        const Json *entry = &json.parts[i], *type, *shape, *offsets;
        if (entry == meta)
            continue;
        Tensor *tensor = &model.tensors[model.tensor_count++];
        type = get(entry, "dtype"), shape = get(entry, "shape"), offsets = get(entry, "data_offsets");
        require(type && shape && offsets && entry->count == 3, "8.1, members of a tensor");
        require(type->type == '"' && !strcmp(type->text, "F32"), "8.1, type of a tensor");
        require(shape->type == '[' && shape->count <= 5 && offsets->type == '[' && offsets->count == 2, "8.1, tensor");
        tensor->name = entry->name;
        tensor->rank = (int)shape->count;
        u64 bytes = 4;
        for (int axis = 0; axis < tensor->rank; axis++) {
            i64 length = integer(&shape->parts[axis]);
            require(0 < length && length <= 1 << 20 && bytes < (u64)1 << 40, "8.5, shape");
            bytes *= tensor->shape[axis] = (u64)length;
        }
        i64 begin = integer(&offsets->parts[0]), end = integer(&offsets->parts[1]);
        require(0 <= begin && begin <= end && (u64)end <= file.size - file.at, "8.1, offsets");
        tensor->begin = (u64)begin, tensor->end = (u64)end;
        require(tensor->end - tensor->begin == bytes, "8.1, shape");
        require((total += bytes) <= file.size - file.at, "8.1, overlaps");
    }
    for (u64 i = 0, at = 0; at < file.size - file.at; at = model.tensors[i].end)   /* each begins where another ends */
        for (i = 0; i == model.tensor_count || model.tensors[i].begin != at; i++)
            require(i < model.tensor_count, "8.1, holes or overlaps");
    qsort(model.tensors, model.tensor_count, sizeof(Tensor), by_name);
    const Json *format = get(meta, "walloc_ref.format"), *fields = get(meta, "walloc_ref.config");
    const Json *tables = get(meta, "walloc_ref.entropy"), *id = get(meta, "walloc_ref.id");
    const Json *steps = get(meta, "walloc_ref.steps");
    require(format && !strcmp(format->text, "1") && fields, "8.2, metadata");
    const char *config = read_config(&model, fields->text);
    if (tables)
        model.tables = base64(tables->text, &model.tables_size);
    u64 planes = (u64)model.planes, weights_size = planes;
    model.step_weights = steps ? base64(steps->text, &weights_size) : memset(allocate(planes, 1), 128, planes);
    require(weights_size == planes, "8.2, step weights");
    read_tables(&model);
    check_tensors(&model);
    identify(&model, config);
    char hexadecimal[65] = "";
    for (int i = 0; i < 32; i++)
        snprintf(hexadecimal + 2 * i, 3, "%02x", model.identity[i]);
    require(!id || !strcmp(id->text, hexadecimal), "8.2, walloc_ref.id");
    return model;
}

/* ---- 7 entropy coding: >> of a negative number rounds down, as every compiler has it ------------------------------ */
typedef struct { int kind, source, dy, dx; } Tap;
struct Plane { int taps, hidden; Tap *tap; i32 *units, *biases, *outputs; };       /* units (taps, 2 + hidden) */

static i32 clamp(i32 v, i32 low, i32 high) { return v < low ? low : v > high ? high : v; }
static i32 *take_integers(Bytes *in, u64 count, int size) {                        /* signed, little-endian */
    i32 *out = allocate(count, sizeof *out);
    for (u64 i = 0; i < count; i++)
        out[i] = (i32)((u32)take_little(in, size) << (32 - 8 * size)) >> (32 - 8 * size);
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

static void read_tables(Model *model) {                                            /* 7.2, 7.3, 16.6 */
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
            int before = model->axes == 3 && D <= source && source < 2 * D;
            int past = source < c || (source == c && (tap.dy < 0 || (tap.dy == 0 && tap.dx < 0)));
            require(tap.kind < 2 && (past || before), "7.2, tap");
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
            out[i % 2] += 32767 * (i64)abs(plane->outputs[i]);
        for (int u = 0; u < columns; u++) {
            i64 total = llabs((i64)plane->biases[u]);
            for (int i = 0; i < plane->taps; i++)
                total += (plane->tap[i].kind ? 1023 : 16 * L) * (i64)abs(plane->units[i * columns + u]);
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

static i32 squash[4095], stretch[4096];                    /* 7.5; squash[x + 2047] */
static void fill_tables(void) {
    u64 e = 1 << 24;                                       /* 2^24·e^(i/256): more than 32 bits */
    for (int i = 0; i < 2048; i++, e = e * 16842880 >> 24) {
        u64 p = (e << 16) / (e + (1 << 24));
        squash[2047 + i] = p < 65504 ? (i32)p : 65504;
        squash[2047 - i] = 65536 - squash[2047 + i];
    }
    for (int q = 0, x = 0; q < 4096; stretch[q++] = x - 2047)
        while (x < 4094 && squash[x + 1] <= 16 * q + 8)
            x++;
}

static i32 level(i32 v, int per_octave, i32 first, i32 count) {
    int e = 0;
    for (; v >> (e + 1); e++) {}
    return clamp(per_octave * e + (v * per_octave >> e) % per_octave - first, 0, count - 1);
}

typedef struct {                                           /* of one slice */
    const Model *model;
    Bytes in;
    u32 span, value;                                       /* 7.12; `low` decides nothing in a decoder */
    i32 *p, weights[8][16][4];                             /* 7.9: p below 2^22, weights within 2^21 */
    u8 *n;
    i16 *values[2];                                        /* 7.6: symbols and deviations, in sixteenths: (D, h, w), and */
                                                           /* after them those of the depth position before (16.6) */
    i32 h, w;
} Coder;

static void next_byte(Coder *coder) {                      /* three zeros follow the payload */
    require(coder->in.at < coder->in.size + 3, "7.13, payload too short");
    coder->value = coder->value << 8 | (coder->in.at < coder->in.size ? coder->in.data[coder->in.at] : 0);
    coder->in.at++;
}

/* 7.12. span·p/2^16 without 64 bits: the halves of span one by one. value < span < 2^32 always, or the payload was rejected
 * at its beginning; where span is below 2^24, value is, too, and both may grow by a byte. */
static int decide_with(Coder *coder, u32 p) {
    u32 bound = (coder->span >> 16) * p + ((coder->span & 0xFFFF) * p >> 16);
    int bit = coder->value < bound;
    coder->value -= bit ? 0 : bound;
    for (coder->span = bit ? bound : coder->span - bound; coder->span < 1 << 24; coder->span <<= 8)
        next_byte(coder);
    return bit;
}

static int decide(Coder *coder, i32 mixer, const i32 at[4], i32 node) {            /* 7.9 */
    i32 *weights = coder->weights[mixer][node], inputs[4];
    i64 dot = 0;                                           /* four products of 2^21 by 2^11 */
    for (int k = 0; k < 4; k++)
        dot += (i64)weights[k] * (inputs[k] = stretch[coder->p[16 * at[k] + node] >> 10]);
    i32 p = squash[clamp((i32)(dot >> 16), -2047, 2047) + 2047];
    i32 bit = decide_with(coder, (u32)p), error = 65536 * bit - p;
    for (int k = 0; k < 4; k++) {
        i32 *state = &coder->p[16 * at[k] + node];
        u8 *n = &coder->n[16 * at[k] + node];
        weights[k] = clamp(weights[k] + ((inputs[k] * error + (1 << 18)) >> 19), -(1 << 20), 1 << 20);
        *state += (i32)((i64)((bit << 22) - *state) * (655360 / (10 * *n + 16)) >> 16);                    /* 22 by 16 bits */
        *state = clamp(*state, 256, (1 << 22) - 256);
        *n = (u8)(*n + (*n < 255));
    }
    return bit;
}

static i32 decode_residual(Coder *coder, i32 mixer, const i32 at[4], const i32 room[2]) {          /* 7.10 */
    if (!decide(coder, mixer, at, 0))
        return 0;
    int negative = decide(coder, mixer, at, 1), e = 0;
    i32 value = 1;
    while (decide(coder, mixer, at, 2 + clamp(e, 0, 6)))
        require(1 << ++e <= room[negative], "7.10, residual too large");
    for (int known = 0; known < e; known++) {
        i32 node = known == 0 ? (e == 1 ? 9 : e == 2 ? 10 : 13) : (e == 2 ? 11 : 14) + value % 2;
        value = 2 * value + (known > 1 ? decide_with(coder, 32768) : decide(coder, mixer, at, node));
    }
    require(value <= room[negative], "7.10, residual too large");
    return negative ? -value : value;
}

static i32 neighbour(const Coder *coder, i32 c, i32 y, i32 x, Tap tap) {           /* 7.6 */
    i32 h = coder->h, w = coder->w, y1 = clamp(y + tap.dy, 0, h - 1), x1 = clamp(x + tap.dx, 0, w - 1);
    if (tap.source == c && (y1 > y || (y1 == y && x1 >= x))) {
        if (y == 0 && x == 0)
            return 0;
        x1 = y > 0 ? 0 : x - 1;
        y1 = y > 0 ? y - 1 : 0;
    }
    return coder->values[tap.kind][((u64)tap.source * (u64)h + (u64)y1) * (u64)w + (u64)x1];
}

static i32 decode_symbol(Coder *coder, int c, i32 y, i32 x) {                      /* 7.7, 7.8, 7.11 */
    const struct Plane *plane = &coder->model->plane[c];
    i32 sums[64], L = (1 << (coder->model->field[BITS] - 1)) - 1, columns = 2 + plane->hidden;     /* 7.3: 32 bits */
    memcpy(sums, plane->biases, (size_t)columns * sizeof *sums);
    for (int i = 0; i < plane->taps; i++) {
        i32 value = neighbour(coder, c, y, x, plane->tap[i]);
        for (i32 u = 0; u < columns; u++)
            sums[u] += plane->units[i * columns + u] * value;
    }
    i64 total[2] = {(i64)sums[0] * 16, (i64)sums[1] * 16};                         /* up to 2^36 */
    for (int i = 0; i < 2 * plane->hidden; i++)
        total[i % 2] += clamp(sums[2 + i / 2] >> 8, 0, 32767) * plane->outputs[i];
    i32 linear = (sums[0] + 2048) >> 12, mean = clamp((i32)((total[0] + 32768) >> 16), -16 * L, 16 * L);
    i32 scale = clamp((i32)(total[1] >> 12), 1, 16383), expected = (mean + 8) >> 4, fraction = mean - 16 * expected;
    i32 flip = fraction < 0 ? -1 : 1, side[2], d[4], size = level(scale, 4, 8, 44), D = coder->model->planes;
    for (int i = 0; i < 4; i++) {
        Tap tap = {1, c, i ? -1 : 0, i == 0 || i == 2 ? -1 : i == 3};              /* W, N, NW, NE */
        d[i] = neighbour(coder, c, y, x, tap);
        tap.kind = 0;
        i32 off = flip * (neighbour(coder, c, y, x, tap) - mean), margin = 1 + (scale >> 4);
        if (i < 2)
            side[i] = 1 + (off > margin) - (off < -margin);
    }
    i32 activity = level(clamp(2 * d[0] + 2 * d[1] + d[2] + d[3], 1, 6 * 1023), 2, 4, 12);
    i32 at[4] = {size * 5 + ((flip * fraction + 1) >> 1), 220 + c * 11 + (size >> 2),
                 220 + 11 * D + activity * 11 + (size >> 2), 220 + 11 * D + 132 + (side[0] * 3 + side[1]) * 44 + size};
    i32 k = expected + flip * decode_residual(coder, size / 6, at, (i32[]){L - flip * expected, L + flip * expected});
    u64 here = ((u64)c * (u64)coder->h + (u64)y) * (u64)coder->w + (u64)x;
    coder->values[0][here] = (i16)(16 * k);
    coder->values[1][here] = (i16)clamp(abs(16 * k - linear), 0, 1023);
    return k;
}

/* 7.15, 16.5: one slice of rows by w symbols a plane, in a volume depth times. It begins at row `top` of symbols, u8 pairs of
 * i16 (D, all, stride), where the rows of a depth position follow those of the one before. */
typedef struct { u8 *symbols; u64 all, stride, top, left; } Target;
static void decode_slice(const Model *model, Bytes payload, u64 depth, u64 rows, u64 w, Target to) {
    static const u8 strength[] = {0, 1, 2, 3, 5, 7, 11, 15, 23, 31, 47, 63, 95, 127, 191, 255};
    u64 D = (u64)model->planes, states = 16 * (748 + 11 * D), most = 11360 * payload.size / D, size = D * rows * w;
    require(rows <= most && w <= most / rows && depth <= most / (rows * w), "12.5, payload too short");
    require(rows <= INT32_MAX && w <= INT32_MAX, "12.5, payload too short");
    Coder coder = {.model = model, .in = payload, .span = 0xFFFFFFFF, .h = (i32)rows, .w = (i32)w};
    coder.p = allocate(states, sizeof *coder.p);
    coder.n = allocate(states, sizeof *coder.n);
    for (u64 i = 0; i < states; i++) {
        coder.p[i] = (i32)(little(model->states + 2 * i, 2) / 16) << 10;
        coder.n[i] = strength[model->states[2 * i] % 16];
    }
    for (int i = 0; i < 512; i++)
        coder.weights[i / 64][i / 4 % 16][i % 4] = 64 * (i16)little(model->mixers + 2 * i, 2);
    for (int kind = 0; kind < 2; kind++)
        coder.values[kind] = allocate(model->axes == 3 ? 2 * size : size, sizeof(i16));
    fill_tables();
    for (int i = 0; i < 4; i++)
        next_byte(&coder);
    require(coder.value < coder.span, "7.13, first bytes");
    for (u64 p = 0; p < depth; p++) {
        for (int kind = 0; kind < 2 && p; kind++)
            memcpy(coder.values[kind] + size, coder.values[kind], size * sizeof(i16));
        for (int c = 0; c < (int)D; c++)
            for (i32 y = 0; y < coder.h; y++) {
                u8 *out = to.symbols + 2 * (((u64)c * to.all + to.top + p * rows + (u64)y) * to.stride + to.left);
                for (i32 x = 0; x < coder.w; x++)
                    put(&out, decode_symbol(&coder, c, y, x), 2);
            }
    }
    require(coder.in.at == coder.in.size + 3, "7.13, payload too long");
    require(coder.value < 1 << 24, "7.13, last byte");     /* (low + value) mod 2^24 is 0: the last three bytes were */
    free(coder.p), free(coder.n), free(coder.values[0]), free(coder.values[1]);
}

/* ---- 6 quantiser: symbols to latents ----------------------------------------------------------------------------- */
static double latent(int k, int bits) {                    /* 6.4: s·sqrt(2)·u, erfc(u) = 1 - |k|/M by Newton's method */
    double last = (1 << (bits - 1)) - 1, range = last + 0.499, tail = (last - abs(k) + 0.499) / range, u = 0;
    for (int i = 0; i < 60; i++)                          /* rises to the root without overshooting: erfc is convex */
        u += (erfc(u) - tail) * exp(u * u) * 0.88622692545275801;                  /* sqrt(pi)/2 */
    return (k < 0 ? -u : k == 0 ? 0 : u) * last / 1.85 * sqrt(2.0);
}

/* ---- sums of rows: all that takes time ---------------------------------------------------------------------------- */
enum { ROWS = 4, PIECE = 512 };                            /* rows of 4 KB stay in the first cache */

/* Four rows of n numbers, each plus two terms; what a compiler turns into vector instructions. */
static void add_terms(real *restrict y0, real *restrict y1, real *restrict y2, real *restrict y3, const real *a,
                      const real *b, const real w[ROWS][2], u64 n) {
    for (u64 j = 0; j < n; j++) {
        y0[j] += w[0][0] * a[j] + w[0][1] * b[j];
        y1[j] += w[1][0] * a[j] + w[1][1] * b[j];
        y2[j] += w[2][0] * a[j] + w[2][1] * b[j];
        y3[j] += w[3][0] * a[j] + w[3][1] * b[j];
    }
}

/* y[o·y_stride + j] += sum over t of w[o·w_stride + t]·x[t][j], o below `outputs`, t below `terms`, j below n. Every layer is
 * this: a convolution's terms are its input's rows, shifted. Where rows or terms are missing to four and two, weights are 0. */
static void add_rows(real *y, u64 y_stride, u64 outputs, const real *const *x, u64 terms, const real *w, u64 w_stride, u64 n) {
    static real spare[ROWS][PIECE];
    for (u64 from = 0; from < n; from += PIECE) {
        u64 count = n - from < PIECE ? n - from : PIECE;
        for (u64 o = 0; o < outputs; o += ROWS) {
            real *rows[ROWS];
            for (u64 r = 0; r < ROWS; r++)
                rows[r] = o + r < outputs ? y + (o + r) * y_stride + from : spare[r];
            for (u64 t = 0; t < terms; t += 2) {
                real four[ROWS][2] = {{0}};
                int pair = t + 1 < terms;
                for (u64 r = 0; r < ROWS && o + r < outputs; r++) {
                    four[r][0] = w[(o + r) * w_stride + t];
                    four[r][1] = pair ? w[(o + r) * w_stride + t + 1] : 0;
                }
                add_terms(rows[0], rows[1], rows[2], rows[3], x[t] + from, x[t + (u64)pair] + from,
                          (const real (*)[2])four, count);
            }
        }
    }
}

static real *add(real *x, real *y, u64 count) {            /* x + y, in x; frees y */
    for (u64 i = 0; i < count; i++)
        x[i] += y[i];
    free(y);
    return x;
}

static real *transposed(const real *x, u64 rows, u64 columns) {
    real *out = reals(rows * columns);
    for (u64 i = 0; i < rows; i++)
        for (u64 j = 0; j < columns; j++)
            out[j * rows + i] = x[i * columns + j];
    return out;
}

/* ---- 9 image networks: arrays are (channels, h, w) ----------------------------------------------------------------- */
typedef struct { const Model *model; const char *prefix; u64 h, w, positions; } Place;     /* no positions: checking (8.5) */

/* 9.2; with one tap 5.1, 5.2 and the affine maps of 9.6. Rows of a copy with a border of zeros are the terms. */
static real *conv(const Place *at, const char *layer, const real *x, int inputs, int outputs, int rank, int side) {
    real *weight = weights(at->model, name("%s%s.weight", at->prefix, layer), rank, outputs, inputs, side);
    real *bias = weights(at->model, name("%s%s.bias", at->prefix, layer), 1, outputs, 0, 0);
    u64 P = at->positions, N = (u64)inputs, edge = (u64)side / 2, tall = at->h + 2 * edge, wide = at->w + 2 * edge;
    real *out = reals((u64)outputs * P), *framed = reals(P ? N * tall * wide : 0);
    const real **terms = allocate(N * (u64)(side * side), sizeof *terms);
    for (u64 i = 0; i < (u64)outputs * P; i++)
        out[i] = bias[i / P];
    for (u64 row = 0; row < N * at->h && P; row++)
        memcpy(framed + (row / at->h * tall + row % at->h + edge) * wide + edge, x + row * at->w, at->w * sizeof *x);
    for (u64 i = 0; i < at->h && P; i++) {
        u64 t = 0;
        for (u64 n = 0; n < N; n++)
            for (u64 a = 0; a < (u64)side; a++)
                for (u64 b = 0; b < (u64)side; b++)
                    terms[t++] = framed + (n * tall + i + a) * wide + b;
        add_rows(out + i * at->w, P, (u64)outputs, terms, t, weight, t, at->w);
    }
    free(weight), free(bias), free(framed), free(terms);
    return out;
}

static real *norm(const Place *at, const char *layer, const real *x, int channels, int silu) {     /* 9.3, 9.4 */
    real *weight = weights(at->model, name("%s%s.weight", at->prefix, layer), 1, channels, 0, 0);
    real *bias = weights(at->model, name("%s%s.bias", at->prefix, layer), 1, channels, 0, 0);
    real *out = reals((u64)channels * at->positions);
    u64 count = (u64)channels / 32 * at->positions;
    for (u64 first = 0; first < 32 * count; first += count) {
        double mean = 0, variance = 0;
        for (u64 i = first; i < first + count; i++)
            mean += x[i];
        mean /= (double)count;
        for (u64 i = first; i < first + count; i++)
            variance += (x[i] - mean) * (x[i] - mean);
        real shift = (real)mean, scale = (real)(1 / sqrt(variance / (double)count + 1e-6));
        for (u64 i = first; i < first + count; i++) {
            real y = weight[i / at->positions] * (x[i] - shift) * scale + bias[i / at->positions];
            out[i] = silu ? y / (1 + exp(-y)) : y;
        }
    }
    free(weight), free(bias);
    return out;
}

static real *residual(const Place *at, const char *block, real *x, int n) {        /* 9.5; frees x, as all below do */
    real *y = NULL;
    for (int part = 1; part <= 2; part++) {
        real *t = norm(at, name("%s.norm%d", block, part), y ? y : x, n, 1);
        free(y);
        y = conv(at, name("%s.conv%d", block, part), t, n, n, 4, 3);
        free(t);
    }
    return add(y, x, (u64)n * at->positions);
}

/* 9.6, four queries at a time: scores are sums of rows of k, one of P numbers for each of N, and what they mix sums of
 * columns of v, N numbers for each of P. */
static real *attention(const Place *at, const char *block, real *x, int n) {
    u64 P = at->positions, N = (u64)n;
    real *t = norm(at, name("%s.group_norm", block), x, n, 0), *score = reals(ROWS * P), *mixed = reals(N * P);
    real *q = conv(at, name("%s.to_q", block), t, n, n, 2, 1), *k = conv(at, name("%s.to_k", block), t, n, n, 2, 1);
    real *v = conv(at, name("%s.to_v", block), t, n, n, 2, 1);
    real *queries = transposed(q, N, P), *values = transposed(v, N, P);            /* (P, N) */
    const real **keys = allocate(N, sizeof *keys), **columns = allocate(P, sizeof *columns);
    for (u64 i = 0; i < N; i++)
        keys[i] = k + i * P;
    for (u64 r = 0; r < P; r++)
        columns[r] = values + r * N;
    for (u64 p = 0; p < P; p += ROWS) {
        u64 some = P - p < ROWS ? P - p : ROWS;
        memset(score, 0, ROWS * P * sizeof *score);
        add_rows(score, P, some, keys, N, queries + p * N, N, P);
        for (u64 s = 0; s < some; s++) {
            real largest = -INFINITY, *row = score + s * P;
            double total = 0;
            for (u64 r = 0; r < P; r++)
                largest = row[r] > largest ? row[r] : largest;
            for (u64 r = 0; r < P; r++)
                total += row[r] = exp((row[r] - largest) / sqrt((real)n));
            for (u64 r = 0; r < P; r++)
                row[r] /= (real)total;
        }
        add_rows(mixed + p * N, N, some, columns, P, score, P, N);
    }
    real *turned = transposed(mixed, P, N), *out = conv(at, name("%s.to_out.0", block), turned, n, n, 2, 1);
    free(t), free(score), free(mixed), free(q), free(k), free(v), free(queries), free(values), free(turned);
    free(keys), free(columns);
    return add(out, x, N * P);
}

static real *network(const Place *at, real *x, int inputs, int n, int outputs) {   /* 9.7, 9.8, 9.9 */
    static const char *const blocks[2][6] = {
        {"mid_block.resnets.0", "mid_block.attentions.0", "mid_block.resnets.1", "up_blocks.0.resnets.0",
         "up_blocks.0.resnets.1", "up_blocks.0.resnets.2"},
        {"down_blocks.0.resnets.0", "down_blocks.0.resnets.1", "mid_block.resnets.0", "mid_block.attentions.0",
         "mid_block.resnets.1"}};
    int encoder = at->prefix[0] == 'e';
    real *y = conv(at, "conv_in", x, inputs, n, 4, 3), *t;
    free(x);
    for (int i = 0; i < 6 - encoder; i++)
        y = (strstr(blocks[encoder][i], "attentions") ? attention : residual)(at, blocks[encoder][i], y, n);
    t = norm(at, "conv_norm_out", y, n, 1);
    free(y);
    y = conv(at, "conv_out", t, n, outputs, 4, 3);
    free(t);
    return y;
}

/* ---- 11 audio networks: arrays are (channels, positions) ----------------------------------------------------------- */

/* 11.7: weights (first, second, taps) as they are used, with a gain for each of the first axis. */
static real *normalised(const Place *at, const char *layer, int first, int second, int taps) {
    real *gain = weights(at->model, name("%s%s.weight_g", at->prefix, layer), 3, first, 1, 1);
    real *weight = weights_of(at->model, name("%s%s.weight_v", at->prefix, layer), 3,
                              (u64[4]){(u64)first, (u64)second, (u64)taps, 0});
    u64 count = (u64)second * (u64)taps;
    for (u64 a = 0; a < (u64)first && !at->model->checking; a++) {
        double sum = 0;
        for (u64 i = 0; i < count; i++)
            sum += (double)weight[a * count + i] * weight[a * count + i];
        for (u64 i = 0; i < count; i++)
            weight[a * count + i] = (real)(gain[a] / sqrt(sum) * weight[a * count + i]);
    }
    free(gain);
    return weight;
}

/* 11.6: n positions to n + 2p - δ·(T - 1); takes the weights (outputs, inputs, T) and frees them. */
static real *convolve(const Place *at, const real *x, real *weight, real *bias, int inputs, int outputs, int taps,
                      int padding, int dilation) {
    u64 n = at->positions, wide = n + 2 * (u64)padding, size = wide - (u64)(dilation * (taps - 1)), t = 0;
    if (!n)
        size = wide = 0;
    real *out = reals((u64)outputs * size), *framed = reals((u64)inputs * wide);
    const real **terms = allocate((u64)(inputs * taps), sizeof *terms);
    for (int i = 0; i < inputs && n; i++) {
        memcpy(framed + (u64)i * wide + padding, x + (u64)i * n, n * sizeof *x);
        for (int k = 0; k < taps; k++)
            terms[t++] = framed + (u64)i * wide + dilation * k;
    }
    for (u64 i = 0; bias && i < (u64)outputs * size; i++)
        out[i] = bias[i / size];
    add_rows(out, size, (u64)outputs, terms, t, weight, t, size);
    free(weight), free(bias), free(framed), free(terms);
    return out;
}

static real *conv1d(const Place *at, const char *layer, const real *x, int inputs, int outputs, int taps, int padding,
                    int dilation, int biased) {
    real *bias = biased ? weights(at->model, name("%s%s.bias", at->prefix, layer), 1, outputs, 0, 0) : NULL;
    return convolve(at, x, normalised(at, layer, outputs, inputs, taps), bias, inputs, outputs, taps, padding, dilation);
}

static real *snake(const Place *at, const char *layer, const real *x, int channels) {              /* 11.8 */
    u64 shape[4] = {1, (u64)channels, 1, 0};
    real *alpha = weights_of(at->model, name("%s%s.alpha", at->prefix, layer), 3, shape);
    real *beta = weights_of(at->model, name("%s%s.beta", at->prefix, layer), 3, shape);
    real *out = reals((u64)channels * at->positions);
    for (u64 i = 0; i < (u64)channels * at->positions; i++) {
        u64 c = i / at->positions;
        real wave = sin(exp(alpha[c]) * x[i]);
        out[i] = x[i] + wave * wave / (exp(beta[c]) + (real)1e-9);
    }
    free(alpha), free(beta);
    return out;
}

static real *unit(const Place *at, const char *block, real *x, int n, int dilation) {              /* 11.9; frees x */
    real *a = snake(at, name("%s.snake1", block), x, n);
    real *b = conv1d(at, name("%s.conv1", block), a, n, n, 7, 3 * dilation, dilation, 1);
    real *c = snake(at, name("%s.snake2", block), b, n);
    real *d = conv1d(at, name("%s.conv2", block), c, n, n, 1, 0, 1, 1);
    free(a), free(b), free(c);
    return add(d, x, (u64)n * at->positions);
}

static real *units(const Place *at, const char *block, real *x, int n) {           /* dilations 1, 3, 9 */
    for (int i = 1, dilation = 1; i <= 3; i++, dilation *= 3)
        x = unit(at, name("%s.res_unit%d", block, i), x, n, dilation);
    return x;
}

static real *drop_one(Place *at, const char *layer, const real *x, int inputs, int outputs) {      /* 11.10, conv_t1 */
    real *given = normalised(at, layer, inputs, outputs, 2), *turned = reals((u64)(2 * inputs * outputs));
    real *bias = weights(at->model, name("%s%s.bias", at->prefix, layer), 1, outputs, 0, 0);
    for (int i = 0; i < inputs && !at->model->checking; i++)
        for (int o = 0; o < outputs; o++)                  /* as a convolution: its first tap meets position t */
            for (int k = 0; k < 2; k++)
                turned[(o * inputs + i) * 2 + 1 - k] = given[(i * outputs + o) * 2 + k];
    real *out = convolve(at, x, turned, bias, inputs, outputs, 2, 0, 1);
    free(given);
    at->positions -= at->positions > 0;
    return out;
}

static real *decode_audio(const Model *model, real *z, u64 positions) {            /* 11.10: (D, n + 2) to (K, n); frees z */
    int D = (int)model->field[LATENT_DIM], K = model->bands, B = D * (int)(model->field[ND] / D);
    Place at = {model, "decoder.1.", 1, positions, positions};
    real *x = conv1d(&at, "conv1", z, D, B, 7, 3, 1, 1), *t;
    free(z);
    for (int i = 0; i < 2; i++) {
        const char *block = i ? "block.1" : "block.0";
        int outputs = i ? D : B;
        t = snake(&at, name("%s.snake1", block), x, B);
        free(x);
        x = units(&at, block, drop_one(&at, name("%s.conv_t1", block), t, B, outputs), outputs);
        free(t);
    }
    t = snake(&at, "snake1", x, D);
    free(x);
    x = conv1d(&at, "conv2", t, D, K, 7, 3, 1, 0);
    free(t);
    return x;
}

static void check_audio(const Model *model) {              /* 8.5: tensors of 11.5, 11.11 and 11.12, which nothing here runs */
    int D = (int)model->field[LATENT_DIM], K = model->bands, C = (int)model->field[CHANNELS];
    Place at = {model, "encoder.0.", 0, 0, 0};
    if (model->field[POST]) {
        free(weights_of(model, "post.weight", 3, (u64[4]){(u64)C, (u64)C, 129, 0}));
        free(weights(model, "post.bias", 1, C, 0, 0));
    }
    if (model->field[LIGHTWEIGHT]) {
        free(weights(model, "encoder.0.weight", 3, D, K, 1));
        free(weights(model, "encoder.0.bias", 1, D, 0, 0));
        return;
    }
    int B = D * (int)(model->field[NE] / D);
    free(conv1d(&at, "conv1", NULL, K, D, 7, 3, 1, 1));
    for (int i = 0; i < 2; i++) {
        const char *block = i ? "block.1" : "block.0";
        free(units(&at, block, reals(0), i ? B : D));
        free(snake(&at, name("%s.snake1", block), NULL, i ? B : D));
        free(conv1d(&at, name("%s.conv1", block), NULL, i ? B : D, B, 2, 1, 1, 1));
    }
    free(snake(&at, "snake1", NULL, B));
    free(conv1d(&at, "conv2", NULL, B, D, 3, 1, 1, 1));
}

/* ---- latents to subbands ------------------------------------------------------------------------------------------ */
static real *decode_latents(const Model *model, real *z, u64 h, u64 w) {           /* h: all rows of a volume; frees z */
    int D = (int)model->field[LATENT_DIM], K = model->bands;
    Place at = {model, model->field[ARCHITECTURE] == NONLINEAR ? "decoder.1." : "", h, w, h * w};
    if (model->audio)
        return decode_audio(model, z, w);
    if (model->field[ARCHITECTURE] == NONLINEAR)
        return network(&at, z, D, (int)model->field[ND], K);
    real *bands = reals((u64)K * at.positions);
    for (int s = 0; s < model->field[STAGES]; s++) {                               /* 5.2, 5.3, 16.4 */
        const char *layer = model->field[ARCHITECTURE] == RESIDUAL ? name("decoders.%d", s) : "decoder.1";
        real *part = conv(&at, layer, z + (u64)s * (u64)D * at.positions, D, K, 2 + model->axes, 1);
        add(bands, part, (u64)K * at.positions);
    }
    free(z);
    return bands;
}

static void require_norms(const Model *model, const Tensor *tensor) {              /* 11.7: no sum of squares is 0 */
    u64 count = tensor->shape[1] * tensor->shape[2];
    for (u64 at = tensor->begin; at < tensor->end; at += 4 * count) {
        double sum = 0;
        for (u64 i = 0; i < count; i++)
            sum += (double)value_at(model, at + 4 * i) * value_at(model, at + 4 * i);
        require(sum > 0, "11.7, a sum of squares is 0");
    }
}

static void check_tensors(Model *model) {                                          /* 8.5, 8.7 */
    int D = (int)model->field[LATENT_DIM], K = model->bands, stages = model->field[ARCHITECTURE] == RESIDUAL;
    Place at = {model, "", 0, 0, 0}, network_at = {model, "encoder.0.", 0, 0, 0};
    model->checking = 1;
    free(decode_latents(model, reals(0), 0, 0));
    if (model->audio)
        check_audio(model);
    else if (!model->field[LIGHTWEIGHT])
        free(network(&network_at, reals(0), K, (int)model->field[NE], D));
    for (int s = 0; s < model->field[STAGES] && model->field[LIGHTWEIGHT] && !model->audio; s++)
        free(conv(&at, stages ? name("encoders.%d", s) : "encoder.0", NULL, K, D, 2 + model->axes, 1));
    model->checking = 0;
    for (u64 i = 0; i < model->tensor_count; i++) {
        require(model->tensors[i].expected, "8.5, surplus tensor");
        for (u64 at_byte = model->tensors[i].begin; at_byte < model->tensors[i].end; at_byte += 4)
            require((little(model->body + at_byte, 4) >> 23 & 255) != 255, "8.7, a value that is not finite");
        const char *last = strrchr(model->tensors[i].name, '.');                   /* 11.7 is a rule of the file */
        if (last && !strcmp(last, ".weight_v"))
            require_norms(model, &model->tensors[i]);
    }
}

/* ---- 4 wavelet packet synthesis ---------------------------------------------------------------------------------- */
static const double TAPS[2][5] = {                         /* 4.1: g and h */
    {-0.7884856164055829, 0.41809227322161724, 0.04068941760916406, -0.06453888262869706},
    {0.8526986790088938, 0.37740285561283066, -0.11062440441843718, -0.023849465019556843, 0.03782845550726404}};

/* 4.3, on rows of w numbers: 2·half rows from `half` rows of each band. Along a row itself, w is 1. */
static void merge(const real *low, const real *high, u64 half, u64 w, real *out) {
    u64 n = 2 * half;
    for (u64 i = 0; i < n; i++)
        for (int m = -4; m <= 4; m++) {
            u64 at = (i + 4 * n + (u64)(4 + m) - 4) % n;   /* (i + m) mod n, never below 0 */
            real factor = (real)((m % 2 ? 1 : -1) * TAPS[at % 2][abs(m)]);
            const real *from = (at % 2 ? high : low) + at / 2 * w;
            for (u64 j = 0; j < w; j++)
                out[i * w + j] += factor * from[j];
        }
}

/* `planes` arrays of each band, one after the other, each of `half` rows of w numbers; frees the bands. */
static real *merged(real *low, real *high, u64 planes, u64 half, u64 w) {
    real *out = reals(2 * planes * half * w);
    for (u64 p = 0; p < planes; p++)
        merge(low + p * half * w, high + p * half * w, half, w, out + 2 * p * half * w);
    free(low), free(high);
    return out;
}

static real *turned(real *x, u64 rows, u64 columns) {      /* transposed; frees x */
    real *out = transposed(x, rows, columns);
    free(x);
    return out;
}

static real *synthesise(const Model *model, real *bands, u64 z, u64 h, u64 w) {    /* (K, z, h, w) to C times m as large; 4.7 */
    u64 split = (u64)1 << model->axes, C = (u64)model->field[CHANNELS];
    for (u64 count = (u64)model->bands; count > C; count /= split) {
        u64 size = z * h * w, deep = model->axes == 3 ? 2 * z : z, tall = model->axes == 1 ? h : 2 * h;
        real *out = reals(count * size), *part[8];
        for (u64 band = 0; band < count; band += split) {  /* neighbours differ in the first axis that is left (4.4) */
            for (u64 f = 0; f < split; f++)
                part[f] = memcpy(reals(size), bands + (band + f) * size, size * sizeof *out);
            for (u64 a = 0; a < 4 && model->axes == 3; a++)
                part[a] = merged(part[2 * a], part[2 * a + 1], 1, z, h * w);
            for (u64 a = 0; a < 2 && model->axes >= 2; a++)
                part[a] = merged(part[2 * a], part[2 * a + 1], deep, h, w);
            u64 rows = deep * tall;                        /* across: as down, turned */
            real *whole = turned(merged(turned(part[0], rows, w), turned(part[1], rows, w), 1, w, rows), 2 * w, rows);
            memcpy(out + band * size, whole, split * size * sizeof *out);
            free(whole);
        }
        free(bands);
        bands = out;
        z = deep, h = tall, w *= 2;
    }
    return bands;
}

/* ---- 10 container ------------------------------------------------------------------------------------------------ */
#define MAX_SAMPLES ((u64)1 << 30)                                                 /* 12.4 */
static const struct { int size; double full, silence, step; } FORMAT[] = {         /* 3.1, 3.2, 11.1 */
    {1, 128, 128, 1}, {2, 65535, 0, 1}, {2, 32768, 0, 1}, {4, 2147483648.0, 0, 256}, {4, 2147483648.0, 0, 1}, {4, 1, 0, 0},
    {8, 1, 0, 0}};
enum { U8, U16, S16, S24, S32, F32, F64 };

typedef struct {
    int axes, audio, format, J, bits;
    double mean, gain;
    u64 channels, depth, height, width, planes, slice_size, slices, along;         /* sizes that there are none of: 1; 10.8 */
    u64 z, h, w, positions;                                /* latent positions along the axes, and of a plane */
    u64 step, weighted, window, context;                  /* 6.7, 6.8, 9.11 */
    const u8 *identity, *hash, *sample_hash;
    const u8 **payload;
    u64 *length, *index, uncertain;                        /* of slices; of CERTIFICATE */
} Stream;

static double take_double(Bytes *in) {
    u64 bits = take_little(in, 8);
    double value;
    memcpy(&value, &bits, 8);
    return value;
}

static void read_head(Stream *s, Bytes in) {                                       /* 10.5, 10.6 */
    int kind = *take(&in, 1);
    s->format = *take(&in, 1);
    require(kind <= 2 && s->format <= F64, "10.5, kind and format");
    s->axes = kind == 1 ? 1 : kind == 2 ? 3 : 2;
    s->audio = s->axes == 1;
    require(s->audio ? s->format != U16 : s->format <= S16 || s->format == F32, "10.5, format of this kind");
    s->channels = varint(&in, 1, 4096, "10.6, channels");
    s->depth = s->axes < 3 ? 1 : varint(&in, 1, ((u64)1 << 40) - 1, "10.6, size");
    s->height = s->audio ? 1 : varint(&in, 1, ((u64)1 << 40) - 1, "10.6, size");
    s->width = varint(&in, 1, ((u64)1 << 40) - 1, "10.6, size");
    if (s->audio)
        varint(&in, 1, UINT32_MAX, "10.6, rate");
    if (s->audio || s->format == F32) {                    /* 3.10 */
        s->mean = take_double(&in);
        s->gain = take_double(&in);
        require(isfinite(s->mean) && isfinite(s->gain) && s->gain >= 0, "10.6, mean and gain");
    }
    s->identity = take(&in, 16);
    s->J = *take(&in, 1);
    s->planes = varint(&in, 1, 4096, "10.6, D");
    s->bits = *take(&in, 1);
    s->step = take_little(&in, 4);
    s->weighted = *take(&in, 1);
    s->window = s->axes != 2 ? 0 : varint(&in, 0, ((u64)1 << 40) - 1, "10.6, window");
    s->context = s->window ? varint(&in, 0, s->window, "10.6, context") : 0;
    require(s->step >= 1 << 6 && s->step <= 1 << 26 && s->weighted <= 1, "10.6, step and weighted");
    require(s->window == 0 || s->window >= 8, "10.6, window");
    s->slice_size = varint(&in, 1, ((u64)1 << 40) - 1, "10.6, slice_size");
    s->hash = take(&in, 8);
    require(in.at == in.size, "10.6, something follows HEAD's last field");
    require(s->J <= 10 && 2 <= s->bits && s->bits <= 8, "10.6, J and b");
    u64 most = MAX_SAMPLES, sizes[4] = {s->channels, s->depth, s->height, s->width};
    for (int i = 0; i < 4; most /= sizes[i++])
        require(sizes[i] <= most, "12.4, samples");
    s->z = s->axes < 3 ? 1 : ((s->depth - 1) >> s->J) + 1;
    s->h = s->audio ? 1 : ((s->height - 1) >> s->J) + 1;
    s->w = ((s->width - 1) >> s->J) + 1 + 2 * (u64)s->audio;                       /* 3.5, 11.5 */
    s->positions = s->z * s->h * s->w;
    s->along = s->audio ? s->w : s->axes == 3 ? s->z : s->h;
    require(s->slice_size <= s->along, "10.6, slice_size");
    s->slices = (s->along - 1) / s->slice_size + 1;
}

static void read_certificate(Stream *s, Bytes in) {                                /* 10.10 */
    u64 samples = s->channels * s->depth * s->height * s->width;
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

static u64 slice_length(const Stream *s, u64 i) {          /* positions along the first axis; the last may have fewer */
    return i + 1 < s->slices ? s->slice_size : s->along - i * s->slice_size;
}

static void check_limits(const Model *model, const Stream *s) {                    /* 12.6, 16.9 */
    u64 padded = (u64)model->bands * s->positions, shown = (u64)model->field[CHANNELS] * s->depth * s->height * s->width;
    require(s->audio || padded <= MAX_SAMPLES / 256 || padded <= shown << s->axes, "12.6, padding");
    u64 reach = 2 * s->window + 2 * s->context, tall = s->h, wide = s->w;
    if (s->window && reach < tall)
        tall = reach;
    if (s->window && reach < wide)
        wide = reach;
    require(model->field[ARCHITECTURE] != NONLINEAR || tall * wide <= MAX_SAMPLES >> 13, "12.6, positions seen at once");
}

static u8 *decode_symbols(const Model *model, const Stream *s) {                   /* i16 (D, z, h, w) */
    require(!memcmp(s->identity, model->identity, 16), "8.8, another model");
    require(s->axes == model->axes, "10.7, kind");
    require(s->J == model->field[LEVELS] && s->bits == model->field[BITS], "10.7, J or b");
    require(s->planes == (u64)model->planes, "10.7, D");
    require(s->channels == 1 || s->channels == (u64)model->field[CHANNELS], "10.7, channels");
    require(s->window == 0 || model->field[ARCHITECTURE] == NONLINEAR, "10.7, window");
    check_limits(model, s);
    u64 unit = s->positions / s->along;                    /* positions of a plane at one place along the first axis */
    for (u64 i = 0; i < s->slices; i++)                    /* 12.5, before anything is allocated */
        require(slice_length(s, i) * unit <= 11360 * s->length[i] / s->planes, "12.5, slice too short");
    u64 count = s->planes * s->positions;
    u8 *symbols = allocate(count, 2);
    for (u64 i = 0; i < s->slices; i++) {
        u64 start = i * s->slice_size, length = slice_length(s, i), depth = s->axes == 3 ? length : 1;
        u64 rows = s->axes == 2 ? length : s->h, columns = s->audio ? length : s->w;
        Target to = {symbols, s->z * s->h, s->w, s->audio ? 0 : start * (unit / s->w), s->audio ? start : 0};
        decode_slice(model, (Bytes){s->payload[i], s->length[i], 0}, depth, rows, columns, to);
    }
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

static real *decode_windows(const Model *model, const Stream *s, real *z) {    /* (D, h, w) to (K, h, w); z is freed */
    u64 h = s->z * s->h, w = s->w, W = s->window, c = s->context, D = s->planes, K = (u64)model->bands;
    if (!W)
        return decode_latents(model, z, h, w);
    real *out = reals(K * h * w);
    for (u64 a = 0, top, bottom; (top = edge(h, W, a)) < h; a++)
        for (u64 b = 0, left, right; (left = edge(w, W, b)) < w; b++) {
            bottom = edge(h, W, a + 1), right = edge(w, W, b + 1);
            u64 y0 = top > c ? top - c : 0, x0 = left > c ? left - c : 0;
            u64 tall = (bottom + c < h ? bottom + c : h) - y0, wide = (right + c < w ? right + c : w) - x0;
            real *seen = reals(D * tall * wide);
            for (u64 d = 0; d < D; d++)
                for (u64 i = 0; i < tall; i++)
                    memcpy(seen + (d * tall + i) * wide, z + (d * h + y0 + i) * w + x0, wide * sizeof *z);
            real *part = decode_latents(model, seen, tall, wide);
            for (u64 k = 0; k < K; k++)
                for (u64 i = top; i < bottom; i++)
                    memcpy(out + (k * h + i) * w + left, part + (k * tall + i - y0) * wide + left - x0,
                           (right - left) * sizeof *z);
            free(part);
        }
    free(z);
    return out;
}

/* ---- 3, 11 samples ------------------------------------------------------------------------------------------------ */
static real *decode_signal(const Model *model, const Stream *s) {                  /* padded, not clamped */
    u8 *symbols = decode_symbols(model, s);
    real *z = reals(s->planes * s->positions);
    double table[256];
    for (int k = -127; k < 128; k++)
        table[k + 128] = abs(k) < 1 << (s->bits - 1) ? latent(k, s->bits) : 0;
    for (u64 i = 0; i < s->planes * s->positions; i++)
        z[i] = (real)(table[(i16)little(symbols + 2 * i, 2) + 128] * plane_step(model, s, i / s->positions));
    real *bands = decode_windows(model, s, z), *x = synthesise(model, bands, s->z, s->h, s->w - 2 * (u64)s->audio);
    if (!model->field[POST])
        return x;
    int C = (int)model->field[CHANNELS];                                           /* 11.12 */
    u64 length = (s->w - 2) * (u64)model->m;
    Place at = {model, "", 1, length, length};
    real *filter = weights_of(model, "post.weight", 3, (u64[]){(u64)C, (u64)C, 129});
    real *out = convolve(&at, x, filter, weights(model, "post.bias", 1, C, 0, 0), C, C, 129, 64, 1);
    free(x);
    return out;
}

static void put_sample(u8 **out, const Stream *s, double x) {                      /* 3.8 to 3.10, 11.14, 11.17 */
    double full = FORMAT[s->format].full, step = FORMAT[s->format].step;
    double a = s->gain * x + s->mean;
    u64 bits = 0;
    float narrow = (float)a;
    if (s->format >= F32) {
        if (s->format == F32)
            memcpy(&bits, &narrow, 4);
        else
            memcpy(&bits, &a, 8);
        put(out, (i64)bits, FORMAT[s->format].size);
    } else if (!s->audio) {
        full = s->format == U8 ? 255 : 65535;
        i64 lowest = s->format == S16 ? -32768 : 0;
        put(out, (i64)fmin(fmax(rint(full * (x + 0.5)), 0.0), full) + lowest, FORMAT[s->format].size);
    } else {
        double r = fmin(fmax(rint(a * full / step), -full / step), full / step - 1);
        put(out, (i64)((r + FORMAT[s->format].silence) * step), FORMAT[s->format].size);
    }
}

static u8 *decode_samples(const Model *model, Stream *s) {                         /* (H, W, C'), (frames, C') or (Z, H, W, C') */
    real *x = decode_signal(model, s);
    u64 m = (u64)model->m, deep = s->axes == 3 ? s->z * m : 1, tall = s->audio ? 1 : s->h * m, wide = s->w * m;
    u64 front = (deep - s->depth) / 2, above = (tall - s->height) / 2, left = (wide - s->width) / 2;             /* 3.6 */
    if (s->audio)
        left = 0, wide -= 2 * m;
    u64 repeated = s->channels < (u64)model->field[CHANNELS] ? (u64)model->field[CHANNELS] : 1;                  /* 3.3 */
    u64 item = (u64)FORMAT[s->format].size;
    u8 *out = allocate(s->depth * s->height * s->width * s->channels, item), *to = out;
    for (u64 p = front; p < front + s->depth; p++)
        for (u64 i = above; i < above + s->height; i++)
            for (u64 j = left; j < left + s->width; j++)
                for (u64 c = 0; c < s->channels; c++) {
                    double sum = 0;
                    for (u64 r = 0; r < repeated; r++)                             /* 3.7 */
                        sum += fmin(fmax((double)x[(((c + r) * deep + p) * tall + i) * wide + j], -0.5), 0.5);
                    put_sample(&to, s, sum / (double)repeated);
                }
    if (s->sample_hash && s->format < F32 && sizeof(real) == 8) {                  /* 10.10, 10.11 */
        u64 size = (u64)(to - out);
        u8 *copy = memcpy(allocate(size, 1), out, size);
        for (u64 i = 0; i < s->uncertain; i++)
            memset(copy + s->index[i] * item, 0, item);
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
    static const char *const types[] = {"|u1", "<u2", "<i2", "<i4", "<i4", "<f4", "<f8"};
    if (count < 6)
        fail(2, "usage: decoder decode symbols|slice|stream MODEL.safetensors IN OUT.npy");
    const char *stage = words[2];
    if (strcmp(words[1], "decode") || (strcmp(stage, "symbols") && strcmp(stage, "slice") && strcmp(stage, "stream")))
        fail(UNSUPPORTED, name("unsupported: %s %s", words[1], stage));
    Model model = read_model(words[3]);
    Bytes file = read_file(words[4]);
    if (!strcmp(stage, "slice")) {                         /* D, h, w, of a volume D, z, h, w, and a payload */
        u64 shape[4] = {0}, rank = model.axes == 3 ? 4 : 3, size;
        for (u64 i = 0; i < rank; i++)
            require((shape[i] = take_little(&file, 4)) > 0, "7.1, sizes");
        require(shape[0] == (u64)model.planes, "7.1, sizes");
        u64 z = rank == 4 ? shape[1] : 1, h = shape[rank - 2], w = shape[rank - 1], most;
        size = file.size - file.at, most = 11360 * size / shape[0];
        require(h <= most && w <= most / h && z <= most / (h * w), "12.5, payload too short");
        u8 *symbols = allocate(shape[0] * z * h * w, 2);
        decode_slice(&model, (Bytes){take(&file, size), size, 0}, z, h, w, (Target){symbols, z * h, w, 0, 0});
        write_npy(words[5], "<i2", (int)rank, shape, symbols, 2);
        return DONE;
    }
    Stream s = read_stream(file);
    u64 latent[4] = {s.planes, s.z, s.h, s.w}, sizes[4] = {s.depth, s.height, s.width, s.channels};
    if (!strcmp(stage, "symbols")) {
        latent[3 - s.axes] = s.planes;                     /* the axes that there are */
        write_npy(words[5], "<i2", 1 + s.axes, latent + 3 - s.axes, decode_symbols(&model, &s), 2);
    } else {
        int rank = s.axes + (s.audio || s.channels > 1);
        write_npy(words[5], types[s.format], rank, sizes + 3 - s.axes, decode_samples(&model, &s),
                  (size_t)FORMAT[s.format].size);
    }
    return DONE;
}
