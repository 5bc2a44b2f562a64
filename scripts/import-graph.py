#!/usr/bin/env python3
"""Checks that source files do not import each other in cycles.

Builds one graph for each Rust crate, from its `use` declarations and paths, and one for web/sdk/src, from its
`import … from` statements. Follows re-exports to the file that defines an item. Ignores tests below `#[cfg(test)]`.

A cycle is an error if its files belong to different folders or if it has more than three files. A module may use what
the file of its own folder (`x/mod.rs`, or `x.rs` beside `x/`) defines; the graph omits these imports.

`import-graph.py --edges` also prints the graph.
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MAX_FILES_IN_CYCLE = 3
COMMENT_OR_TEXT = re.compile(r'//[^\n]*|/\*.*?\*/|r#".*?"#|"(?:\\.|[^"\\])*"', re.DOTALL)
TEST_MODULE = re.compile(r"#\[cfg\(test\)\]\s*mod \w+ \{")
USE = re.compile(r"(\bpub(?:\([^)]*\))?\s+)?\buse\s+([^;]+);")
PATH = re.compile(r"(?<![\w:$])\w+(?:::\w+)+")
TYPESCRIPT_IMPORT = re.compile(r"^(?:import|export)\s(?:[^;]*?\sfrom\s)?[\"'](\.[^\"']+)[\"']", re.MULTILINE)


def expand(tree, prefix=()):
    """Yields path and alias of each leaf of a use tree such as `a::{b, c::{self, d as e}}`."""
    if "{" not in tree:
        path, _, alias = tree.partition(" as ")
        path = prefix + tuple(path.strip().split("::"))
        path = path[:-1] if path[-1] == "self" and len(path) > 1 else path
        yield path, alias.strip() or path[-1]
        return
    head, body = tree.split("{", 1)
    prefix += tuple(part for part in head.strip().split("::") if part)
    depth, start, body = 0, 0, body.rstrip()[:-1] + ","
    for index, char in enumerate(body):
        depth += {"{": 1, "}": -1}.get(char, 0)
        if char == "," and depth == 0:
            if body[start:index].strip():
                yield from expand(body[start:index], prefix)
            start = index + 1


def rust_graph(source):
    modules, texts = {}, {}
    for file in sorted(source.rglob("*.rs")):
        parts = file.relative_to(source).with_suffix("").parts
        module = parts[:-1] if parts[-1] in ("mod", "lib", "main") else parts
        modules[module] = file
        texts[module] = COMMENT_OR_TEXT.sub("", TEST_MODULE.split(file.read_text())[0])
    # Absolute path of each name that is visible in a module: its child modules and what it imports.
    names = {module: {child[-1]: child for child in modules if child and child[:-1] == module} for module in modules}

    def absolute(path, module):
        """Returns the path from the root of the crate, or None if it leads to another crate."""
        if path[0] == "crate":
            return path[1:]
        if path[0] in ("self", "super"):
            base = module
            while path and path[0] in ("self", "super"):
                base, path = (base[:-1] if path[0] == "super" else base), path[1:]
            return base + path
        return names[module][path[0]] + path[1:] if path[0] in names[module] else None

    leaves = {module: [] for module in modules}
    for module, text in texts.items():
        for exported, tree in USE.findall(text):
            for path, alias in expand(tree):
                target = absolute(path, module)
                if target is not None and alias != "*":
                    leaves[module].append((target, bool(exported)))
                    names[module].setdefault(alias, target)

    def definition(path):
        """Returns the module that defines an item, and the rest of the path below that module."""
        for _ in range(9):
            module = next(path[:length] for length in range(len(path), -1, -1) if path[:length] in modules)
            rest = path[len(module):]
            if not rest or names[module].get(rest[0], path) == path:
                break
            path = names[module][rest[0]] + rest[1:]
        return module, rest

    graph = {file: set() for file in modules.values()}
    for module, file in modules.items():
        paths = [absolute(tuple(path.split("::")), module) for path in PATH.findall(USE.sub("", texts[module]))]
        used = [target for target, exported in leaves[module] if not exported]
        for path in used + [path for path in paths if path is not None]:
            target, rest = definition(path)
            # Importing a whole module is not a dependency, but using an item through it is.
            if rest and target not in (module, module[:-1]):
                graph[file].add(modules[target])
    return graph


def typescript_graph(source):
    graph = {}
    for file in sorted(source.rglob("*.ts")):
        names = TYPESCRIPT_IMPORT.findall(file.read_text())
        targets = [(file.parent / name).resolve().with_suffix(".ts") for name in names]
        graph[file] = {target for target in targets if target.exists()}
    return graph


def cycles(graph):
    """Returns the strongly connected components with more than one file."""
    reachable = {}
    for start in graph:
        reachable[start], pending = set(), [start]
        while pending:
            for target in graph[pending.pop()] - reachable[start]:
                reachable[start].add(target)
                pending.append(target)
    components = {frozenset(b for b in reachable[a] if a in reachable[b]) for a in graph if a in reachable[a]}
    return sorted(sorted(component) for component in components if len(component) > 1)


def folder(file):
    return file.with_suffix("") if file.with_suffix("").is_dir() else file.parent


def show(file, targets):
    return f"{file.relative_to(ROOT)} -> {', '.join(sorted(str(target.relative_to(ROOT)) for target in targets))}"


def main():
    sources = sorted([*ROOT.glob("crates/*/src"), *ROOT.glob("bins/*/src"), ROOT / "tests/src"])
    graphs = [rust_graph(source) for source in sources] + [typescript_graph(ROOT / "web/sdk/src")]
    found = False
    for graph in graphs:
        for file in graph if "--edges" in sys.argv[1:] else ():
            print(show(file, graph[file]))
        for cycle in cycles(graph):
            if len({folder(file) for file in cycle}) > 1 or len(cycle) > MAX_FILES_IN_CYCLE:
                found = True
                print(f"import cycle of {len(cycle)} files:", file=sys.stderr)
                for file in cycle:
                    print(f"  {show(file, graph[file].intersection(cycle))}", file=sys.stderr)
    if found:
        sys.exit(1)
    print("import graph: ok")


if __name__ == "__main__":
    main()
