/* What the columns of /samples mean. */
#include "task/columns.h"

#include <stddef.h>
#include <string.h>

static const struct task_column columns[] = {
    /* perplexity */
    {"tokens", "token", "predictions that are scored"},
    {"top1", "token", "of these, predictions whose most probable token is the right one"},
    {"words", "1", "words of the documents that begin here, as written (protocol lm-eval; for others the signature has the total)"},
    {"bytes", "byte", "UTF-8 bytes of the documents that begin here, as written (protocol lm-eval)"},
    {"documents", "1", "documents that begin here (protocol lm-eval)"},
    {"hf_tokens", "token", "weight of the window in Hugging Face's mean (protocol hf-strided)"},
    {"nll", "nat", "sum of -ln p over the scored predictions"},
    {"nll_squared", "nat2", "sum of (ln p)^2 over the scored predictions"},
    {"hf_nll", "nat", "mean nll of the window times that weight (protocol hf-strided)"},
    /* translation */
    {"correct#", "1", "clipped matches of n-grams, n = "},
    {"total#", "1", "n-grams of the translation, n = "},
    {"hyp_len", "1", "tokens of the translation, as BLEU cuts them"},
    {"ref_len", "1", "tokens of the nearest reference, as BLEU cuts them"},
    {"chrf_hyp#", "1", "character n-grams of the translation, n = "},
    {"chrf_ref#", "1", "character n-grams of the reference, n = "},
    {"chrf_match#", "1", "character n-grams of both, n = "},
    /* answers */
    {"em", "1", "exact match, TriviaQA's official scorer"},
    {"em_squad", "1", "exact match, SQuAD's normalisation"},
    {"em_lmeval", "1", "exact match, as lm-evaluation-harness counts it"},
    {"sub_em", "1", "an accepted answer stands somewhere in the output"},
    {"answer_kept", "1", "an accepted answer is in what was left of the document"},
    {"f1", "1", "best F1 over the accepted answers, TriviaQA's official scorer"},
    {"f1_squad", "1", "best F1, SQuAD's normalisation"},
    {"f1_longbench", "1", "best F1, as LongBench counts it"},
    {"correct", "1", "the hidden answer was found"},
    {"depth_percent", "%", "where in the prompt the answer is hidden: 0 its start, 100 its end"},
    /* against dense attention on the same tokens */
    {"compared_tokens", "token", "tokens of the right answer that were compared"},
    {"same_top1", "token", "compared tokens whose most probable token is dense attention's too"},
    {"kl", "nat", "sum of KL(dense || method) over the compared tokens (perplexity: over the scored ones)"},
    {"answer_nll", "nat", "sum of -ln p over the compared tokens"},
    /* generation */
    {"prompt_tokens", "token", "tokens of the prompt, BOS included"},
    {"truncated_tokens", "token", "tokens of the document that did not fit"},
    {"new_tokens", "token", "tokens generated"},
};

const struct task_column *task_column(const char *name)
{
    size_t n = strlen(name);
    while (n > 0 && name[n - 1] >= '0' && name[n - 1] <= '9')
        n--;
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++)
        if (!strcmp(name, columns[i].name))
            return &columns[i];
    for (size_t i = 0; i < sizeof columns / sizeof columns[0]; i++) {
        size_t k = strlen(columns[i].name);
        if (name[n] && columns[i].name[k - 1] == '#' && k - 1 == n && !strncmp(name, columns[i].name, n))
            return &columns[i];
    }
    return NULL;
}
