"""From text to weighted terms: words, pairs of neighbouring words, and what apt's tags say."""

import re

WORD = re.compile(r"[a-z][a-z0-9]*")
SEGMENT_END = re.compile(r"[^\w\s\-/+'\"]+|\n \.\n")

# Words that say nothing of what a package is for: English glue and the small talk of descriptions.
STOP_WORDS = frozenset(
    """a able about all allow allows also an and any are as at available based be been both
    but by can contain contains could designed different do does each easily either etc for
    from has have how if in include included includes including into is it its itself just
    like make makes many may more most much must need needs new no not of on one only or
    other others our out over package packages provide provided provides providing run same
    several should similar simple so some such support supported supporting supports than
    that the their them then there these they this those through to too under up use used
    user users uses using various very via was way we well were what when where which while
    who will with within without work working works would written you your""".split()
)

# The facets of Debian's tags that speak of the subject; the others speak of the implementation.
SUBJECT_FACETS = frozenset(
    """accessibility admin biology devel field filetransfer game hardware junior mail network office
    protocol science security sound use web works-with works-with-format""".split()
)

NAME_WEIGHT, SUMMARY_WEIGHT, DESCRIPTION_WEIGHT, TAG_WEIGHT = 3, 8, 1, 2


def stem(word):
    """The singular of a plural, by three rules of endings."""
    n = len(word)
    if n > 4 and word.endswith("ies"):
        return word[:-3] + "y"
    if n > 4 and word.endswith("es") and word[-3] in "sxz":
        return word[:-2]
    if n > 3 and word.endswith("s") and word[-2] not in "su":
        return word[:-1]
    return word


class Tokenizer:
    """Remembers the stem of every word it has met; "" stands for a word to leave out."""

    def __init__(self):
        self._known = {}

    def _learn(self, word):
        short = len(word) < 2 and word not in ("c", "r")
        self._known[word] = "" if short or word in STOP_WORDS else stem(word)
        return self._known[word]

    def words(self, text):
        known = self._known
        found = (known.get(w) if w in known else self._learn(w) for w in WORD.findall(text.lower()))
        return [word for word in found if word]

    def terms(self, text):
        """Words and pairs of neighbours; a pair does not reach over punctuation."""
        out = []
        for segment in SEGMENT_END.split(text):
            words = self.words(segment)
            out += words
            out += [f"{a} {b}" for a, b in zip(words, words[1:])]
        return out

    def tag_terms(self, tags):
        out = []
        for tag in tags or ():
            facet, _, value = tag.partition("::")
            if facet in SUBJECT_FACETS:
                out.append(tag)
                out += self.words(value.replace("-", " "))
        return out

    def package_terms(self, package):
        """Pairs (term, weight) of a package; a term may come more than once."""
        f = package.features
        for terms, weight in (
            (self.terms(package.name.replace("-", " ")), NAME_WEIGHT),
            (self.terms(f["summary"] or ""), SUMMARY_WEIGHT),
            (self.terms(package.description), DESCRIPTION_WEIGHT),
            (self.tag_terms(f["tags"]), TAG_WEIGHT),
        ):
            for term in terms:
                yield term, weight
