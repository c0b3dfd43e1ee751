/* TriviaQA's official files: questions with aliases, and their evidence documents, tokenised once each.
 *
 *     qa/wikipedia-dev.json          {"Data": [{"Question", "QuestionId", "Answer": {...}, "EntityPages": [{"Filename"}], ...}]}
 *     evidence/wikipedia/NAME.txt    evidence/web/NAME.txt */
#ifndef AST_TASK_QA_SET_H
#define AST_TASK_QA_SET_H

#include <stdbool.h>
#include <stdint.h>

#include "io/json.h"
#include "task/ngram.h"
#include "text/tok.h"

enum qa_domain { QA_WIKIPEDIA, QA_WEB };

struct qa_doc {
    char *path;
    struct tok_ids ids; /* of the text without white space at its ends */
    char *error;        /* why it cannot be used; NULL: it is there */
};

struct qa_question {
    const char *id;
    struct span text;
    struct span answer;        /* Answer.Value, else the first alias */
    int64_t alias0, n_aliases; /* in aliases */
    int64_t doc0, n_docs;      /* in doc_of */
};

struct qa_set {
    struct json_doc *json;
    struct qa_question *q; /* (n,) one a question; web: one a question and document */
    int64_t n, cap;
    struct spans aliases;                  /* borrowed from json */
    int64_t *doc_of, n_doc_of, cap_doc_of; /* indices into doc */
    struct qa_doc *doc;
    int64_t n_docs, cap_docs;
    char sha256[65]; /* of the question file */
};

struct qa_files {
    const char *data, *evidence; /* evidence "": the folder evidence beside data, or beside data's folder */
    enum qa_domain domain;
    int64_t limit; /* 0: all */
};

/* ERR_IO, ERR_FORMAT: a damaged question file, or not one evidence document there. A single missing or damaged document is
 * kept as an error of its questions. */
int qa_set_open(struct qa_set **out, const struct qa_files *f, const struct tok *tok); /* tok NULL: documents are not read */
void qa_set_close(struct qa_set *s);                                                   /* NULL is fine */

#endif
