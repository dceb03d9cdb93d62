/* The reference of the JSON load benchmark: how fast simdjson reads the same rows on one core.
 *
 *   json_load make ROWS DIM float32|float64 FILE   writes ROWS lines of NDJSON
 *   json_load parse FILE                           prints "seconds BYTES API" of the faster API
 *
 * make: unit vectors with the numbers as clients print them, shortest text that reads back to the
 * same float32 (9 digits or so, numpy and JavaScript) or to the same float64 (16 or 17, Python's
 * json), a string key and three features. Line by line, so a file can be cut into bodies.
 *
 * parse: FILE is NDJSON, or {"rows":[..]} when it starts so. Every row is read as a loader must:
 * each number of the vector as a float32 in an array, each feature by its name. Two of simdjson's
 * APIs do it, DOM and on-demand; it is compiled for the processor at hand, so that on-demand, which
 * lies in headers, gets the instructions that the library picks for itself.
 *
 * Threads: one. Failure: a sentence on standard error, status 1. */
#include <charconv>
#include <chrono>
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <string_view>
#include <vector>

#include <simdjson.h>

namespace
{

constexpr size_t BATCH_BYTES = 1 << 20; /* of NDJSON that simdjson indexes at a time */

[[noreturn]] void die(const std::string &what)
{
    std::fprintf(stderr, "json_load: %s\n", what.c_str());
    std::exit(1);
}

/* ---- making rows ---- */

template <typename T> void put_number(std::string &out, T v)
{
    char text[32];
    out.append(text, std::to_chars(text, text + sizeof text, v).ptr);
}

template <typename T> void make_row(size_t row, std::vector<double> &v, std::string &out)
{
    static std::mt19937_64 random(1);
    static std::normal_distribution<double> normal;
    double square = 0;
    for (double &x : v) {
        x = normal(random);
        square += x * x;
    }
    out += "{\"key\":\"item-";
    put_number(out, row);
    out += "\",\"vector\":[";
    for (size_t i = 0; i < v.size(); i++) {
        if (i)
            out += ',';
        put_number(out, static_cast<T>(v[i] / std::sqrt(square)));
    }
    out += "],\"price\":";
    put_number(out, std::floor(normal(random) * 1000) / 100);
    out += ",\"stock\":";
    put_number(out, random() % 10000);
    out += ",\"brand\":\"brand ";
    put_number(out, random() % 500);
    out += "\"}\n";
}

template <typename T> void make(size_t rows, size_t dim, const char *path)
{
    std::FILE *file = std::fopen(path, "wb");
    std::vector<double> v(dim);
    std::string line;
    if (!file)
        die(std::string("cannot write ") + path);
    for (size_t row = 0; row < rows; row++) {
        line.clear();
        make_row<T>(row, v, line);
        if (std::fwrite(line.data(), 1, line.size(), file) != line.size())
            die(std::string("cannot write ") + path);
    }
    if (std::fclose(file) != 0)
        die(std::string("cannot write ") + path);
}

/* ---- reading them ---- */

struct row {
    std::string key, brand;
    std::vector<float> vector;
    double price = 0;
    int64_t stock = 0;
};

/* What reading must arrive at, whichever way. */
struct total {
    size_t rows = 0, numbers = 0;
    double sum = 0;

    void add(const row &r)
    {
        rows++;
        numbers += r.vector.size();
        sum += r.price + static_cast<double>(r.stock) + r.vector.back();
    }
    bool operator==(const total &o) const
    {
        return rows == o.rows && numbers == o.numbers && sum == o.sum;
    }
};

template <typename Object> void read_row(Object object, row &r)
{
    r.vector.clear();
    for (auto field : object) {
        std::string_view name;
        if constexpr (std::is_same_v<Object, simdjson::dom::object>)
            name = field.key;
        else
            name = field.unescaped_key();
        auto value = [&field] {
            if constexpr (std::is_same_v<Object, simdjson::dom::object>)
                return field.value;
            else
                return field.value().value();
        }();
        if (name == "key")
            r.key = std::string_view(value.get_string());
        else if (name == "vector")
            for (auto x : value.get_array())
                r.vector.push_back(static_cast<float>(double(x.get_double())));
        else if (name == "price")
            r.price = value.get_double();
        else if (name == "stock")
            r.stock = value.get_int64();
        else if (name == "brand")
            r.brand = std::string_view(value.get_string());
        else
            die("a row has a field of another name");
    }
}

bool is_lines(const simdjson::padded_string &text)
{
    return std::string_view(text).substr(0, 7) != "{\"rows\"";
}

void read_dom(const simdjson::padded_string &text, simdjson::dom::parser &parser, total &t)
{
    row r;
    if (is_lines(text)) {
        simdjson::dom::document_stream stream = parser.parse_many(text, BATCH_BYTES);
        for (auto document : stream) {
            read_row(simdjson::dom::object(document.get_object()), r);
            t.add(r);
        }
        return;
    }
    for (auto element : parser.parse(text)["rows"].get_array()) {
        read_row(simdjson::dom::object(element.get_object()), r);
        t.add(r);
    }
}

void read_on_demand(const simdjson::padded_string &text, simdjson::ondemand::parser &parser,
                    total &t)
{
    row r;
    if (is_lines(text)) {
        simdjson::ondemand::document_stream stream = parser.iterate_many(text, BATCH_BYTES);
        for (auto document : stream) {
            read_row(simdjson::ondemand::object(document.get_object()), r);
            t.add(r);
        }
        return;
    }
    simdjson::ondemand::document document = parser.iterate(text);
    for (auto element : document["rows"].get_array()) {
        read_row(simdjson::ondemand::object(element.get_object()), r);
        t.add(r);
    }
}

/* Twice, and the second time counts: the parser's own memory is there then. */
template <typename Parser>
double seconds_of(void (*read)(const simdjson::padded_string &, Parser &, total &),
                  const simdjson::padded_string &text, total &t)
{
    Parser parser;
    double took = 0;
    for (int round = 0; round < 2; round++) {
        auto started = std::chrono::steady_clock::now();
        t = total();
        read(text, parser, t);
        took = std::chrono::duration<double>(std::chrono::steady_clock::now() - started).count();
    }
    return took;
}

void parse(const char *path)
{
    simdjson::padded_string text = simdjson::padded_string::load(path);
    total a, b;
    double dom = seconds_of(read_dom, text, a);
    double on_demand = seconds_of(read_on_demand, text, b);
    if (!(a == b) || a.rows == 0)
        die("DOM and on-demand differ");
    std::printf("%.6f %zu %s\n", std::min(dom, on_demand), text.size(),
                dom < on_demand ? "DOM" : "on-demand");
}

} // namespace

int main(int argc, char **argv)
{
    std::string_view mode = argc > 1 ? argv[1] : "";
    try {
        if (mode == "make" && argc == 6) {
            auto make_typed = argv[4] == std::string_view("float32") ? make<float> : make<double>;
            make_typed(std::strtoull(argv[2], nullptr, 10), std::strtoull(argv[3], nullptr, 10),
                       argv[5]);
        } else if (mode == "parse" && argc == 3) {
            parse(argv[2]);
        } else {
            die("usage: json_load make ROWS DIM float32|float64 FILE | parse FILE");
        }
    } catch (const std::exception &e) {
        die(e.what());
    }
}
