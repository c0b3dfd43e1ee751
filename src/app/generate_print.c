/* One continuation as lines, and as JSON. */
#include "app/generate_print.h"

#include <string.h>

#include "base/err.h"
#include "base/log.h"
#include "io/json.h"

void continuation_free(struct continuation *c)
{
    buf_free(&c->text);
    tok_ids_free(&c->ids);
    pairs_free(&c->pairs);
}

static double decode_rate(const struct continuation *c)
{
    return c->made > 1 && c->seconds > c->first_s ? (double)(c->made - 1) / (c->seconds - c->first_s) : 0;
}

static const struct buf *word(const struct pairs *p, int64_t k, bool prompt)
{
    return prompt ? &p->prompt[p->best[k].prompt].text : &p->generated[p->best[k].generated].text;
}

static int code_points(const char *s)
{
    int n = 0;
    for (; *s; s++)
        n += ((unsigned char)*s & 0xc0) != 0x80;
    return n;
}

static int pairs_text(const struct pairs *p, struct buf *out)
{
    int width = 0, rc = ERR_OK;
    for (int64_t k = 0; k < p->n; k++) {
        int n = code_points(buf_text(word(p, k, false)));
        width = n > width ? n : width;
    }
    if (p->n > 0)
        rc = buf_puts(out, "  written       looks most at  (share of its attention, mean over layers and heads)\n");
    for (int64_t k = 0; k < p->n && rc == ERR_OK; k++) {
        const char *g = buf_text(word(p, k, false));
        rc = buf_printf(out, "    %s%*s  %-20s %5.1f %%\n", g, width - code_points(g), "", buf_text(word(p, k, true)),
                        100 * p->best[k].share);
    }
    return rc;
}

int continuation_text(const struct continuation *c, struct buf *out)
{
    char cache[32], work[32];
    log_bytes(c->cache_bytes, cache, sizeof cache);
    log_bytes(c->step_bytes, work, sizeof work);
    int rc = buf_printf(out, "--- %s: %lld tokens after %lld in %.2f s (first after %.2f s, then %.0f token/s, attention %.2f s)\n",
                        c->method, (long long)c->made, (long long)c->prompt_tokens, c->seconds, c->first_s, decode_rate(c),
                        c->timer.s[TIMER_ATTN]);
    rc = rc ? rc : buf_printf(out, "    keys read %.1f %%, cache %s, activations %s", 100 * c->keys_read, cache, work);
    if (rc == ERR_OK && c->beam)
        rc = buf_printf(out, ", worth %.4f", c->score);
    rc = rc ? rc : buf_printf(out, "\n%s\n", buf_text(&c->text));
    return rc ? rc : pairs_text(&c->pairs, out);
}

static int quoted(struct buf *out, const char *key, const struct buf *value)
{
    int rc = buf_printf(out, "\"%s\": ", key);
    return rc ? rc : json_quote(out, buf_text(value), value->len);
}

int continuation_json(const struct continuation *c, struct buf *out)
{
    int rc = buf_puts(out, "{\"method\": ");
    rc = rc ? rc : json_quote(out, c->method, strlen(c->method));
    rc = rc ? rc : buf_puts(out, ", ");
    rc = rc ? rc : quoted(out, "text", &c->text);
    rc = rc ? rc
            : buf_printf(out,
                         ",\n   \"prompt_tokens\": %lld, \"new_tokens\": %lld, \"seconds\": %.6f, \"first_token_s\": %.6f, "
                         "\"attention_s\": %.6f,\n   \"keys_read\": %.6f, \"cache_bytes\": %.0f, \"activation_bytes\": %.0f,",
                         (long long)c->prompt_tokens, (long long)c->made, c->seconds, c->first_s, c->timer.s[TIMER_ATTN],
                         c->keys_read, c->cache_bytes, c->step_bytes);
    if (rc == ERR_OK && c->beam)
        rc = buf_printf(out, " \"worth\": %.9g,", c->score);
    rc = rc ? rc : buf_puts(out, "\n   \"pairs\": [");
    for (int64_t k = 0; k < c->pairs.n && rc == ERR_OK; k++) {
        rc = buf_puts(out, k ? ",\n     {" : "\n     {");
        rc = rc ? rc : quoted(out, "written", word(&c->pairs, k, false));
        rc = rc ? rc : buf_puts(out, ", ");
        rc = rc ? rc : quoted(out, "prompt", word(&c->pairs, k, true));
        rc = rc ? rc : buf_printf(out, ", \"share\": %.6f}", c->pairs.best[k].share);
    }
    return rc ? rc : buf_puts(out, "]}");
}
