/* What the parts of a filter share: filter_lex.c (words), filter_parse.c (grammar),
 * filter_operand.c (columns and constants), filter_term.c (a comparison becomes a term),
 * filter_text.c (the normal text), filter_like.c (patterns), filter_eval.c (64 rows at a time).
 *
 * A filter is an array of nodes; those of a list hang together by `next`:
 *
 *   price < 5 and (brand = 'a' or not hot)          0 AND ── 1 price in [-inf, 5)
 *                                                            └ 2 OR ── 3 brand = 'a'
 *                                                                      └ 4 negated: hot in [1, 1]
 *
 * Constants lie in `bytes`, nodes refer to them by offset. */
#ifndef LOADSTONE_STORE_FILTER_INTERNAL_H
#define LOADSTONE_STORE_FILTER_INTERNAL_H

#include "store/filter.h"

enum filter_op {
    FILTER_AND,
    FILTER_OR,
    FILTER_CONSTANT,    /* i.lo: 1 true, 0 false, -1 unknown */
    FILTER_IS_NULL,     /* of a feature, the key or the vector */
    FILTER_RANGE_INT,   /* i.lo <= value <= i.hi: bool, int32, int64, timestamp, int64 key */
    FILTER_RANGE_FLOAT, /* f.lo <= value <= f.hi: float32, float64 */
    FILTER_IN_INT,      /* data: sorted int64 */
    FILTER_IN_FLOAT,    /* data: sorted double */
    FILTER_IN_BYTES,    /* data: sorted struct filter_slice */
    FILTER_COMPARE,     /* with data: n bytes at `at`; verdicts */
    FILTER_LIKE,        /* data: struct filter_piece */
    FILTER_HAS_INT,     /* the list holds i.lo */
    FILTER_HAS_FLOAT,   /* the list holds f.lo */
    FILTER_HAS_BYTES,   /* the list holds n bytes at `at` */
    FILTER_COLUMNS,     /* column with column2; verdicts */
};

enum { COLUMN_KEY = -1, COLUMN_VECTOR = -2 };
enum { FILTER_NONE = UINT32_MAX };

/* Verdicts: outcomes of comparing that make a comparison true. */
enum { LESS = 1, EQUAL = 2, GREATER = 4, UNORDERED = 8 /* NaN */ };

struct filter_slice {
    uint32_t at, len; /* in filter->bytes */
};

/* A pattern is pieces of text between its '%'s; one that is not anchored may begin anywhere. */
struct filter_piece {
    struct filter_slice text; /* '_' stands there as LIKE_ANY */
    bool wild;                /* has some */
};
enum { LIKE_ANY = 0xff /* no byte of UTF-8 */ };

struct filter_node {
    uint8_t op;
    bool negate;      /* `not`: true and false change places */
    bool invert;      /* the same, and the operator says so: != */
    uint8_t verdicts; /* FILTER_COMPARE, FILTER_COLUMNS */
    uint8_t type;     /* enum feature_type that the column is read as */
    uint8_t type2;
    bool with_null;       /* FILTER_IN_*: the list has a null, so that a miss is unknown */
    bool open, open_end;  /* FILTER_LIKE: begins, ends with '%' */
    int32_t column;       /* feature, COLUMN_KEY or COLUMN_VECTOR */
    int32_t column2;      /* FILTER_COLUMNS */
    uint32_t child, next; /* FILTER_AND, FILTER_OR: the first of the list; FILTER_NONE */
    uint32_t row_ns;      /* cost, about */
    union {
        struct {
            int64_t lo, hi;
        } i;
        struct {
            double lo, hi;
        } f;
        struct {
            uint32_t at, n; /* n: of elements, or bytes */
        } data;
    };
    struct filter_slice text; /* of a term: its normal text without `negate`, in `texts` */
    uint32_t text_not;        /* where in it the word `not` goes */
};

struct filter {
    struct filter_node *nodes;
    uint32_t nnodes, nodes_max;
    uint32_t root;
    struct buf bytes; /* constants, aligned to 8 */
    struct buf texts;
    struct hash128 id;
};

/* ---- filter_lex.c ---- */

enum token_kind {
    TOKEN_END,
    TOKEN_WORD,   /* unquoted */
    TOKEN_NAME,   /* "quoted" */
    TOKEN_STRING, /* 'quoted' */
    TOKEN_BYTES,  /* x'00ff' */
    TOKEN_NUMBER,
    TOKEN_OPEN,
    TOKEN_CLOSE,
    TOKEN_COMMA,
    TOKEN_COMPARE, /* verdicts */
};

struct token {
    enum token_kind kind;
    uint8_t verdicts;
    const char *text; /* as written, quotes included */
    size_t len;
};

struct parser {
    struct filter *f;
    const struct schema *schema;
    const char *start, *p, *end;
    struct token token; /* the next one */
    unsigned depth;
    uint32_t terms;
    struct err_ctx *ctx;
};

/* Reads the next token into p->token. */
WARN_UNUSED enum err lex_next(struct parser *p);
/* The token is this word, in any case, and not a quoted name. */
bool token_is(const struct token *t, const char *word);
/* A word of the grammar, so that a name like it needs quotes. */
bool word_reserved(const char *word, size_t n);
/* "after 12 characters" becomes character 13: where a token stands, for a person. */
unsigned token_place(const struct parser *p, const struct token *t);
/* "filter: <sentence> at character N", ERR_INVALID; `t` is what stands there instead. */
enum err lex_expected(struct parser *p, const char *what);
/* The text of a quoted token without quotes and doubled quotes, appended to filter->bytes. */
WARN_UNUSED enum err token_unquote(struct parser *p, const struct token *t,
                                   struct filter_slice *out);

/* ---- filter_operand.c ---- */

enum literal_kind {
    LITERAL_NULL,
    LITERAL_BOOL,
    LITERAL_INT,
    LITERAL_FLOAT, /* no whole number that int64 holds */
    LITERAL_STRING,
    LITERAL_BYTES
};

/* A column or a constant. */
struct operand {
    bool is_column;
    struct token token; /* where it stands */
    int32_t column;
    uint8_t type; /* of the column: enum feature_type */
    enum literal_kind literal;
    int64_t i;
    double d; /* the same number, nearest */
    struct filter_slice slice;
};

WARN_UNUSED enum err operand_read(struct parser *p, struct operand *out);

/* Types whose values compare with each other. */
enum family { BOOLS, NUMBERS, TIMES, STRINGS, BYTES, LISTS, VECTORS };
enum family family_of(const struct operand *column);
const char *column_name(const struct parser *p, const struct operand *column);
/* Makes a constant one of the column's family; null fits every one that compares. */
WARN_UNUSED enum err take_type(struct parser *p, const struct operand *column, struct operand *o);
/* The error for a column that is not compared with such an operand. */
enum err mismatch(struct parser *p, const struct operand *column, const struct operand *other);

/* ---- filter_term.c ---- */

/* Each makes one term, whose number it returns. */
WARN_UNUSED enum err term_compare(struct parser *p, const struct operand *a, uint8_t verdicts,
                                  const struct operand *b, uint32_t *out);
WARN_UNUSED enum err term_in(struct parser *p, const struct operand *column, struct operand *items,
                             size_t n, uint32_t *out);
WARN_UNUSED enum err term_like(struct parser *p, const struct operand *column,
                               const struct operand *pattern, const struct operand *escape,
                               uint32_t *out);
WARN_UNUSED enum err term_is_null(struct parser *p, const struct operand *column, uint32_t *out);
WARN_UNUSED enum err term_contains(struct parser *p, const struct operand *list,
                                   const struct operand *item, uint32_t *out);
/* A bool column or a constant by itself. */
WARN_UNUSED enum err term_alone(struct parser *p, const struct operand *a, uint32_t *out);

/* A node more, zeroed but for its op. */
WARN_UNUSED enum err node_new(struct parser *p, enum filter_op op, uint32_t *out);

/* ---- filter_range.c ---- */

/* A number as the filter has it: whole, or floating. */
struct number {
    bool whole;
    int64_t i;
    double d;
};

/* The values of a type that compare so (LESS .. GREATER, not UNORDERED) with a number, as a closed
 * range; empty when lo > hi. */
void range_int(struct number n, uint8_t verdicts, int64_t min, int64_t max, int64_t *lo,
               int64_t *hi);
void range_float64(struct number n, uint8_t verdicts, double *lo, double *hi);
void range_float32(struct number n, uint8_t verdicts, double *lo, double *hi);
/* LESS, EQUAL, GREATER or UNORDERED, exactly. */
uint8_t compare_int_float(int64_t a, double b);
uint8_t compare_bytes(const void *a, size_t na, const void *b, size_t nb);

/* ---- filter_like.c ---- */

/* Compiles a pattern into node->data; `escape` is a code point in UTF-8 or empty. */
WARN_UNUSED enum err like_compile(struct parser *p, const struct operand *pattern,
                                  struct filter_slice escape, struct filter_node *node);
bool like_match(const struct filter *f, const struct filter_node *node, const uint8_t *text,
                size_t len);

/* ---- filter_text.c ---- */

void text_column(const struct parser *p, int32_t column, struct buf *out);
/* A constant as it is compared with a column of the type. */
void text_literal(const struct parser *p, const struct operand *o, uint8_t type, struct buf *out);
const char *text_verdicts(uint8_t verdicts);

#endif
