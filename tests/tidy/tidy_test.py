#!/usr/bin/env python3
"""Shows for each rule of tidy.py that it can fail, and that it lets pass what is right."""

import sys
import unittest

import tidy
from tidy import Source


def breaches(rule, path, text):
    return [sentence for _, sentence in rule(Source(path, text))]


class Rules(unittest.TestCase):
    def refuses(self, rule, path, text, word):
        found = breaches(rule, path, text)
        self.assertTrue(any(word in sentence for sentence in found), found)

    def accepts(self, rule, path, text):
        self.assertEqual(breaches(rule, path, text), [])

    def test_dependencies_point_one_way(self):
        rule = tidy.check_dependencies
        for path, header in [("base/a.cc", "chunkstore/map.h"),
                             ("chunkstore/a.h", "imaged/image.h"),
                             ("imaged/a.cc", "blockd/volume.h"),
                             ("blockd/a.cc", "imaged/image.h"),
                             ("imaged/a.cc", "controlplane/compose.h"),
                             ("controlplane/identity/a.cc", "chunkstore/local/files.h"),
                             ("controlplane/identity/a.cc", "controlplane/compose.h"),
                             ("base/a.h", "tests/support/temp_dir.h"),
                             ("tests/support/a.h", "imaged/image.h")]:
            self.refuses(rule, path, f'#include "{header}"\n', "may only include")
        self.refuses(rule, "base/a.cc", '#include "result.h"\n', "from the root")
        self.refuses(rule, "elsewhere/a.cc", "", "outside the rooms")
        self.accepts(rule, "chunkstore/a.cc", '#include "base/a.h"\n#include "chunkstore/b.h"\n')
        self.accepts(rule, "controlplane/identity/a.cc", '#include "chunkstore/meta_store.h"\n')
        self.accepts(rule, "controlplane/compose.cc", '#include "imaged/image.h"\n')

    def test_third_parties_stay_at_home(self):
        rule = tidy.check_homes
        for path, header in [("base/http/server.h", "boost/beast/core.hpp"),
                             ("imaged/api.cc", "boost/beast/core.hpp"),
                             ("chunkstore/map.cc", "rocksdb/db.h"),
                             ("chunkstore/local/db.h", "rocksdb/db.h"),
                             ("chunkstore/store.cc", "rados/librados.hpp"),
                             ("imaged/api.cc", "spdlog/spdlog.h"),
                             ("imaged/api.cc", "prometheus/counter.h"),
                             ("imaged/api.cc", "openssl/evp.h"),
                             ("imaged/api.cc", "boost/json.hpp"),
                             ("imaged/api.cc", "boost/asio/post.hpp"),
                             ("base/hash.h", "sodium.h"),
                             ("base/hash.cc", "gtest/gtest.h")]:
            self.refuses(rule, path, f"#include <{header}>\n", "may only be included in")
        self.accepts(rule, "chunkstore/local/db.cc", "#include <rocksdb/db.h>\n#include <string>\n")
        self.accepts(rule, "base/http/wire.cc", "#include <boost/beast/core.hpp>\n")

    def test_headers_begin_with_pragma_once(self):
        self.refuses(tidy.check_pragma_once, "base/a.h", "#ifndef A\n", "#pragma once")
        self.accepts(tidy.check_pragma_once, "base/a.h", "#pragma once\n")
        self.accepts(tidy.check_pragma_once, "base/a.cc", "int a;\n")

    def test_namespace_is_the_folder(self):
        rule = tidy.check_namespace
        self.refuses(rule, "base/http/a.h", "namespace chunkstore {\n", "base::http")
        self.refuses(rule, "tests/base/a.cc", "namespace tests {\n", "says base")
        self.refuses(rule, "base/a.h", "#pragma once\nclass A {};\n", "belongs into")
        self.accepts(rule, "base/http/a.h", "namespace base::http {\n")
        self.accepts(rule, "base/http/a.h", "namespace base {\n")
        self.accepts(rule, "controlplane/main/a.cc", "namespace whatever {\n")
        self.accepts(rule, "tests/support/a.cc", "namespace support {\n")
        self.accepts(rule, "tests/chunkstore/local/a.cc", "namespace conformance {\n")

    def test_lines(self):
        rule = tidy.check_lines
        self.refuses(rule, "base/a.cc", "\tint a;\n", "a tab")
        self.refuses(rule, "base/a.cc", "int a; \n", "blanks")
        self.refuses(rule, "base/a.cc", "//" + 99 * "a" + "\n", "101 columns")
        self.refuses(rule, "base/a.cc", "int a;", "no newline")
        self.accepts(rule, "base/a.cc", "//" + 98 * "a" + "\n")
        self.accepts(rule, "base/a.cc", 'f(R"x(\n' + 200 * "a" + '\n)x");\n')
        self.refuses(rule, "base/a.cc", 'f(R"(a)");\n//' + 99 * "a" + "\n", "101 columns")
        self.accepts(rule, "README.md", 200 * "a" + "\n")

    def test_length(self):
        self.refuses(tidy.check_length, "base/a.cc", "\n" * (tidy.MAX_LINES + 1), "split it")
        self.accepts(tidy.check_length, "base/a.cc", "\n" * tidy.MAX_LINES)

    def test_unfinished(self):
        self.refuses(tidy.check_unfinished, "base/a.cc", "// TO" "DO: more\n", "finish it")
        self.refuses(tidy.check_unfinished, "dev", "# FIX" "ME\n", "finish it")
        self.accepts(tidy.check_unfinished, "base/a.cc", "// a TODOLIST\n")

    def test_workplace(self):
        self.refuses(tidy.check_workplace, "README.md", "see /wo" "rk/main\n", "a path")
        self.refuses(tidy.check_workplace, "dev", "cat ../sha" "red/x\n", "a path")
        self.accepts(tidy.check_workplace, "README.md", "framework/network/work\n")

    def test_links(self):
        self.refuses(tidy.check_links, "tests/fuzz/README.md", "[a](nothing.md)\n", "nowhere")
        self.accepts(tidy.check_links, "tests/fuzz/README.md",
                     "[a](run.py) [b](https://example.org/x) [c](#part) [d](run.py#L3)\n"
                     "```\n[e](nothing.md)\n```\n")


if __name__ == "__main__":
    sys.exit(unittest.main())
