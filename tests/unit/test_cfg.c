/* Options: types, ranges, places in errors, unknown keys, overrides, the traps of libconfig. */
#include "cfg/cfg.h"

#include <stdint.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/err.h"
#include "tests/t.h"

struct opts {
    int64_t width;
    double rate;
    bool on;
    const char *name;
    int kind;
    struct cfg_ints sizes;
    struct cfg_reals rates;
    struct cfg_strs words;
};

/* clang-format off */
static const struct cfg_field fields[] = {
    CFG_INT(struct opts, width, 256, 1, 1e12, "keys"),
    CFG_REAL(struct opts, rate, 0.5, 0, 1, "share"),
    CFG_BOOL(struct opts, on, true, "switch"),
    CFG_STR(struct opts, name, "none", "name"),
    CFG_ENUM(struct opts, kind, 1, "f32|bf16|auto", "type"),
    CFG_INTS(struct opts, sizes, "512, 2048", 1, 1e6, "sizes"),
    CFG_REALS(struct opts, rates, "", 0, 1e9, "rates"),
    CFG_STRS(struct opts, words, "a, bc", "words"),
    CFG_END,
};
/* clang-format on */
struct need {
    const char *path;
};
static const struct cfg_field need_fields[] = {CFG_STR_REQ(struct need, path, "a folder"), CFG_END};

static char dir[200];

static char *file(const char *name, const char *text)
{
    static char path[512];
    snprintf(path, sizeof path, "%s/%s", dir, name);
    FILE *f = fopen(path, "w");
    fputs(text, f);
    fclose(f);
    return path;
}

/* Loads group g of the text; the error's text is left for the caller. */
static int load(const char *text, const char *group, struct opts *o, struct cfg **c, const char *override)
{
    err_clear();
    int rc = cfg_open(c, file("a.cfg", text), &override, override ? 1 : 0);
    rc = rc ? rc : cfg_load(*c, group, fields, o);
    return rc ? rc : cfg_finish(*c);
}

static void refused(const char *text, const char *want)
{
    struct opts o;
    struct cfg *c = NULL;
    int rc = load(text, "run", &o, &c, NULL);
    if (rc != ERR_ARG || !strstr(err_text(), want))
        T_FAIL("%s -> %d \"%s\", want \"%s\"", text, rc, err_text(), want);
    cfg_close(c);
    err_clear();
}

static void an_absent_group_has_all_defaults(void)
{
    struct opts o, d;
    struct cfg *c = NULL;
    T_EQ(load("", "run", &o, &c, NULL), ERR_OK);
    T_EQ(o.width, 256);
    T_NEAR(o.rate, 0.5, 0);
    T_CHECK(o.on);
    T_STR(o.name, "none");
    T_EQ(o.kind, 1);
    T_EQ(o.sizes.n, 2);
    T_EQ(o.sizes.v[1], 2048);
    T_EQ(o.rates.n, 0);
    T_EQ(o.words.n, 2);
    T_STR(o.words.v[1], "bc");
    T_EQ(cfg_defaults(fields, &d), ERR_OK);
    T_EQ(d.sizes.v[0], 512);
    cfg_close(c);
}

static void values_arrive_with_their_types(void)
{
    struct opts o;
    struct cfg *c = NULL;
    T_EQ(load("run = { width = 5000000000L; rate = 1; on = false; name = \"x\\\"y\"; kind = \"auto\";\n"
              " sizes = [1, 2, 3]; rates = [0.5, 1.0]; words = \"one\"; };",
              "run", &o, &c, NULL),
         ERR_OK);
    T_EQ(o.width, 5000000000LL);
    T_NEAR(o.rate, 1, 0);
    T_CHECK(!o.on);
    T_STR(o.name, "x\"y");
    T_EQ(o.kind, 2);
    T_EQ(o.sizes.n, 3);
    T_NEAR(o.rates.v[1], 1, 0);
    T_EQ(o.words.n, 1);
    cfg_close(c);
    T_EQ(load("run: { width = 5e9; sizes = 7; };", "run", &o, &c, NULL), ERR_OK);
    T_EQ(o.width, 5000000000LL);
    T_EQ(o.sizes.v[0], 7);
    cfg_close(c);
}

static void mistakes_are_named_with_their_place(void)
{
    refused("run = { width = 3.5; };", "a.cfg:1: width = 3.5: an integer is needed");
    refused("\nrun = {\n width = 0; };", "a.cfg:3: width = 0 is outside [1, 1e+12]");
    refused("run = { rate = \"x\"; };", "a.cfg:1: rate = \"x\": a number is needed");
    refused("run = { on = 1; };", "true or false");
    refused("run = { name = 1; };", "a string");
    refused("run = { kind = \"f16\"; };", "one of f32|bf16|auto");
    refused("run = { width = [1, 2]; };", "width is a list");
    refused("run = { sizes = [1, 0]; };", "sizes = 0 is outside");
    refused("run = { widht = 3; };", "run.widht is unknown; did you mean 'width'?");
    refused("rnu = { width = 3; };", "rnu is unknown; did you mean 'run'?");
    refused("run = { width = 3; sub = { a = 1; }; };", "run.sub is unknown");
    refused("run = 3;", "a group");
    refused("run = { width = ; };", "a.cfg:1: syntax error");
    refused("run = { width = 1; width = 2; };", "a.cfg:1: duplicate");
}

static void integers_that_libconfig_wraps_are_refused(void)
{
    refused("run = { width = 5000000000; };", "width = 5000000000 does not fit 32 bits: write 5000000000L");
    refused("run = { width = 2147483648; };", "does not fit");
    refused("run = { width = 0x1FFFFFFFF; };", "does not fit");
    struct opts o;
    struct cfg *c = NULL;
    T_EQ(load("run = { name = \"5000000000\"; // 5000000000\n width = 2147483647; /* 5000000000 */ };", "run", &o, &c, NULL),
         ERR_OK);
    T_EQ(o.width, 2147483647);
    cfg_close(c);
}

static void the_command_line_overrides(void)
{
    struct opts o;
    struct cfg *c = NULL;
    T_EQ(load("run = { width = 3; };", "run", &o, &c, "run.width=17"), ERR_OK);
    T_EQ(o.width, 17);
    cfg_close(c);
    T_EQ(load("", "run", &o, &c, "run.name=some/path.x"), ERR_OK);
    T_STR(o.name, "some/path.x");
    cfg_close(c);
    T_EQ(load("", "run", &o, &c, "run.sizes=[4,5]"), ERR_OK);
    T_EQ(o.sizes.n, 2);
    cfg_close(c);
    T_EQ(load("run = ({ width = 3; }, { width = 4; });", "run.[1]", &o, &c, "run[1].width=9"), ERR_ARG); /* [0] was not loaded */
    T_EQ(o.width, 9);
    cfg_close(c);
    T_EQ(load("", "run", &o, &c, "run.width=x y"), ERR_ARG);
    T_CHECK(strstr(err_text(), "command line: width = \"x y\"") != NULL);
    cfg_close(c);
    T_EQ(load("", "run", &o, &c, "width"), ERR_ARG);
    cfg_close(c);
    err_clear();
}

static void lists_of_groups_are_counted_and_checked(void)
{
    struct opts o;
    struct need n;
    struct cfg *c = NULL;
    err_clear();
    T_EQ(cfg_open(&c, file("l.cfg", "models = ( { path = \"x\"; width = 2; }, { path = \"y\"; } );"), NULL, 0), ERR_OK);
    T_EQ(cfg_count(c, "models"), 2);
    T_EQ(cfg_count(c, "tasks"), -1);
    T_EQ(cfg_load(c, "models.[0]", need_fields, &n), ERR_OK);
    T_EQ(cfg_load(c, "models.[0]", fields, &o), ERR_OK); /* two tables, one group */
    T_EQ(cfg_load(c, "models.[1]", need_fields, &n), ERR_OK);
    T_STR(n.path, "y");
    T_EQ(cfg_finish(c), ERR_OK);
    T_EQ(cfg_load(c, "models.[2]", need_fields, &n), ERR_ARG);
    T_CHECK(strstr(err_text(), "path is missing") != NULL);
    cfg_close(c);
    err_clear();
    T_EQ(cfg_open(&c, file("g.cfg", "models = { path = \"x\"; };"), NULL, 0), ERR_OK);
    T_EQ(cfg_count(c, "models"), 1);
    T_EQ(cfg_load(c, "models.[0]", need_fields, &n), ERR_OK);
    T_EQ(cfg_finish(c), ERR_OK);
    cfg_close(c);
}

static void includes_keep_their_own_lines(void)
{
    struct opts o;
    struct cfg *c = NULL;
    file("inc.cfg", "\n\nrun = { width = 2.5; };\n");
    T_EQ(load("# one\n@include \"inc.cfg\"\n", "run", &o, &c, NULL), ERR_ARG);
    T_CHECK(strstr(err_text(), "inc.cfg:3: width = 2.5") != NULL);
    cfg_close(c);
    T_EQ(load("@include \"absent.cfg\"\n", "run", &o, &c, NULL), ERR_IO);
    T_CHECK(strstr(err_text(), "a.cfg:1: @include") != NULL);
    cfg_close(c);
    T_EQ(load("@include \"a.cfg\"\n", "run", &o, &c, NULL), ERR_ARG);
    cfg_close(c);
    err_clear();
    T_EQ(cfg_open(&c, "/nonexistent.cfg", NULL, 0), ERR_IO);
    err_clear();
}

static void every_option_is_recorded_with_its_origin(void)
{
    struct opts o;
    struct cfg *c = NULL;
    struct cfg_record r;
    struct buf b = {0};
    T_EQ(load("run = { width = 3; };", "run", &o, &c, "run.rate=0.25"), ERR_OK);
    T_CHECK(cfg_record_at(c, 0, &r));
    T_STR(r.key, "width");
    T_STR(r.text, "3");
    T_CHECK(strstr(r.origin, "a.cfg:1") != NULL);
    T_CHECK(cfg_record_at(c, 1, &r));
    T_STR(r.text, "0.25");
    T_STR(r.origin, "command line");
    T_CHECK(cfg_record_at(c, 5, &r));
    T_STR(r.text, "[512, 2048]");
    T_STR(r.origin, "default");
    T_CHECK(!cfg_record_at(c, 8, &r));
    T_EQ(cfg_print(c, &b), ERR_OK);
    T_CHECK(strstr(buf_text(&b), "run.kind = \"bf16\";  # default\n") != NULL);
    buf_free(&b);
    cfg_close(c);
}

static void near_misses_are_found(void)
{
    static const char *const names[] = {"dense", "window", "longformer"};
    T_STR(cfg_nearest("widnow", names, 3), "window");
    T_CHECK(cfg_nearest("zzzzzz", names, 3) == NULL);
}

int main(int argc, char **argv)
{
    t_start(&argc, &argv);
    snprintf(dir, sizeof dir, "%.100s/ast-cfg-XXXXXX", getenv("TMPDIR") ? getenv("TMPDIR") : "/tmp");
    if (!mkdtemp(dir))
        return 1;
    T_RUN(an_absent_group_has_all_defaults);
    T_RUN(values_arrive_with_their_types);
    T_RUN(mistakes_are_named_with_their_place);
    T_RUN(integers_that_libconfig_wraps_are_refused);
    T_RUN(the_command_line_overrides);
    T_RUN(lists_of_groups_are_counted_and_checked);
    T_RUN(includes_keep_their_own_lines);
    T_RUN(every_option_is_recorded_with_its_origin);
    T_RUN(near_misses_are_found);
    static const char *const left[] = {"a.cfg", "l.cfg", "g.cfg", "inc.cfg"};
    for (int i = 0; i < 4; i++) {
        char p[300];
        snprintf(p, sizeof p, "%s/%s", dir, left[i]);
        unlink(p);
    }
    rmdir(dir);
    return t_done();
}
