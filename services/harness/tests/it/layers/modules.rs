//! The graphs of a crate's modules, of the top level and within each of them: every `crate::…`, `super::…` and `self::…`
//! path of the code that ships.
//!
//! Reads tokens, not lines: a path counts wherever it stands, in a nested group of a `use`, in an expression, in the
//! arguments of a macro; comments and strings are no paths. Follows `mod` from the root file on and leaves out what only
//! tests compile. Must not judge: the order is its caller's.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use proc_macro2::{Delimiter, TokenStream, TokenTree};

/// Stands for the root file among the names of modules.
pub const ROOT: &str = "crate";

/// A path in one module that leads into another beside it, or to an item of the file that declares both.
#[derive(Debug)]
pub struct Dependency {
    pub from: String,
    pub to: String,
    pub file: PathBuf,
    pub line: usize,
    /// As it is written, groups resolved.
    pub path: String,
}

/// Modules beside each other, and who of them names whom.
#[derive(Debug)]
pub struct Modules {
    pub names: BTreeSet<String>,
    pub dependencies: Vec<Dependency>,
}

impl Crate {
    /// Reads the crate of a root file (`lib.rs`, `main.rs`). `read` returns the text of a file, `None` if there is none.
    pub fn read(root: &Path, read: &dyn Fn(&Path) -> Option<String>) -> Self {
        let mut reader = Reader {
            read,
            found: Self::default(),
        };
        let folder = root.parent().unwrap_or(Path::new("")).to_owned();
        reader.file(root.to_owned(), folder, Vec::new());
        reader.found
    }
}

/// Where in a crate some tokens stand.
struct Scope {
    file: PathBuf,
    /// Where the files of its child modules are.
    folder: PathBuf,
    /// Empty in the root.
    module: Vec<String>,
}

/// One path, and what it is called where a `use` brings it in.
struct Leaf {
    segments: Vec<String>,
    alias: Option<String>,
    line: usize,
}

/// The path of a module; empty for the root.
type Module = Vec<String>;

/// What stands in a crate.
#[derive(Default)]
pub struct Crate {
    /// The modules that each declares.
    names: BTreeMap<Module, BTreeSet<String>>,
    /// What the file of each brings in: `crate::Name` may mean one of these.
    imports: BTreeMap<Module, Vec<Leaf>>,
    /// Paths with the module and the file they stand in.
    paths: Vec<(Module, PathBuf, Leaf)>,
}

struct Reader<'a> {
    read: &'a dyn Fn(&Path) -> Option<String>,
    found: Crate,
}

impl Reader<'_> {
    fn file(&mut self, file: PathBuf, folder: PathBuf, module: Vec<String>) {
        let text = (self.read)(&file).unwrap_or_else(|| panic!("no such file: {}", file.display()));
        let tokens: TokenStream = text
            .parse()
            .unwrap_or_else(|error| panic!("{}: {error}", file.display()));
        let scope = Scope { file, folder, module };
        self.walk(tokens, &scope);
    }

    fn walk(&mut self, tokens: TokenStream, scope: &Scope) {
        let tokens: Vec<TokenTree> = tokens.into_iter().collect();
        let mut at = 0;
        while let Some(token) = tokens.get(at) {
            if is_for_tests(&tokens[at..]) {
                at += item_length(&tokens[at..]);
                continue;
            }
            at += 1;
            match token {
                TokenTree::Ident(word) if word == "mod" => {
                    if let Some(TokenTree::Ident(name)) = tokens.get(at) {
                        at += 1;
                        self.module(&name.to_string(), tokens.get(at), scope);
                        at += 1;
                    }
                }
                // Paths that lead into the crate are found behind it once more, as anywhere.
                TokenTree::Ident(word) if word == "use" => {
                    let imports = self.found.imports.entry(scope.module.clone()).or_default();
                    leaves(&tokens, at, &[], imports);
                }
                TokenTree::Ident(word)
                    if ["crate", "self", "super"].iter().any(|start| word == start)
                        && is_separator(&tokens, at) =>
                {
                    let mut paths = Vec::new();
                    at = leaves(&tokens, at - 1, &[], &mut paths);
                    let placed = paths
                        .into_iter()
                        .map(|leaf| (scope.module.clone(), scope.file.clone(), leaf));
                    self.found.paths.extend(placed);
                }
                TokenTree::Group(group) => self.walk(group.stream(), scope),
                _ => {}
            }
        }
    }

    /// Enters a module: its file after `;`, or its braces.
    fn module(&mut self, name: &str, next: Option<&TokenTree>, scope: &Scope) {
        let beside = self.found.names.entry(scope.module.clone()).or_default();
        beside.insert(name.to_owned());
        let mut module = scope.module.clone();
        module.push(name.to_owned());
        let folder = scope.folder.join(name);
        match next {
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let file = scope.file.clone();
                let inner = Scope { file, folder, module };
                self.walk(group.stream(), &inner);
            }
            _ => {
                let beside = scope.folder.join(format!("{name}.rs"));
                let within = folder.join("mod.rs");
                let file = if (self.read)(&beside).is_some() {
                    beside
                } else {
                    within
                };
                self.file(file, folder, module);
            }
        }
    }
}

impl Crate {
    /// The modules within the one of this path, of the top level for none: each path turned into the module it leads to.
    pub fn within(&self, within: &[&str]) -> Modules {
        let within: Module = within.iter().map(|&name| name.to_owned()).collect();
        let names = self.names.get(&within).cloned().unwrap_or_default();
        let mut imported = BTreeMap::new();
        for leaf in self.imports.get(&within).into_iter().flatten() {
            let inner = leaf
                .segments
                .iter()
                .find(|name| !["crate", "self"].contains(&name.as_str()));
            let last = leaf.segments.iter().rfind(|name| *name != "self");
            let home = inner.filter(|name| names.contains(*name));
            if let Some(name) = leaf.alias.as_ref().or(last) {
                imported.insert(name.clone(), home.cloned());
            }
        }
        let mut dependencies = Vec::new();
        for (module, file, leaf) in &self.paths {
            let Some([from, ..]) = module.strip_prefix(within.as_slice()) else {
                continue;
            };
            let mut path = module.clone();
            for step in &leaf.segments {
                match step.as_str() {
                    "crate" => path.clear(),
                    "super" => drop(path.pop()),
                    "self" => {}
                    _ => path.push(step.clone()),
                }
            }
            let Some(path) = path.strip_prefix(within.as_slice()) else {
                continue;
            };
            let to = match path.first() {
                Some(name) if names.contains(name) => name.clone(),
                Some(name) => match imported.get(name) {
                    Some(Some(home)) => home.clone(),
                    // The file brings it in from elsewhere.
                    Some(None) => continue,
                    None => ROOT.to_owned(),
                },
                None => ROOT.to_owned(),
            };
            if to != *from {
                dependencies.push(Dependency {
                    from: from.clone(),
                    to,
                    file: file.clone(),
                    line: leaf.line,
                    path: leaf.segments.join("::"),
                });
            }
        }
        dependencies.sort_by(|one, other| (&one.file, one.line).cmp(&(&other.file, other.line)));
        Modules { names, dependencies }
    }
}

/// Whether `::` stands there.
fn is_separator(tokens: &[TokenTree], at: usize) -> bool {
    let colon = |at| matches!(tokens.get(at), Some(TokenTree::Punct(mark)) if mark.as_char() == ':');
    colon(at) && colon(at + 1)
}

/// Reads the path that begins at `at`, and each path of the group it may end with. Returns where it ends.
fn leaves(tokens: &[TokenTree], mut at: usize, before: &[String], found: &mut Vec<Leaf>) -> usize {
    let mut segments = before.to_vec();
    let mut line = 0;
    loop {
        match tokens.get(at) {
            Some(TokenTree::Ident(name)) => {
                line = name.span().start().line;
                segments.push(name.to_string());
            }
            Some(TokenTree::Punct(mark)) if mark.as_char() == '*' => {
                line = mark.span().start().line;
                segments.push("*".to_owned());
            }
            Some(TokenTree::Group(group)) if group.delimiter() == Delimiter::Brace => {
                let inner: Vec<TokenTree> = group.stream().into_iter().collect();
                let is_comma =
                    |token: &TokenTree| matches!(token, TokenTree::Punct(mark) if mark.as_char() == ',');
                for part in inner.split(is_comma).filter(|part| !part.is_empty()) {
                    leaves(part, 0, &segments, found);
                }
                return at + 1;
            }
            // Arguments of a type: what they name is found on the way on.
            _ => break,
        }
        at += 1;
        if !is_separator(tokens, at) {
            break;
        }
        at += 2;
    }
    let alias = match (tokens.get(at), tokens.get(at + 1)) {
        (Some(TokenTree::Ident(word)), Some(TokenTree::Ident(alias))) if word == "as" => {
            Some(alias.to_string())
        }
        _ => None,
    };
    found.push(Leaf {
        segments,
        alias,
        line,
    });
    at
}

/// Whether an attribute stands there that leaves its item to tests.
fn is_for_tests(tokens: &[TokenTree]) -> bool {
    let [TokenTree::Punct(mark), TokenTree::Group(attribute), ..] = tokens else {
        return false;
    };
    let mut text = attribute.stream().to_string();
    text.retain(|letter| !letter.is_whitespace());
    mark.as_char() == '#' && (text == "cfg(test)" || text.starts_with("cfg(all(test,"))
}

/// How many tokens an item has, from its attributes to its `;` or its braces.
fn item_length(tokens: &[TokenTree]) -> usize {
    let mut is_use = false;
    for (at, token) in tokens.iter().enumerate() {
        match token {
            TokenTree::Ident(word) if word == "use" => is_use = true,
            TokenTree::Punct(mark) if mark.as_char() == ';' => return at + 1,
            TokenTree::Group(group) if group.delimiter() == Delimiter::Brace && !is_use => return at + 1,
            _ => {}
        }
    }
    tokens.len()
}
