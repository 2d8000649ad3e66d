//! Every path that a file's code names: imports spelled out in full, paths in expressions and types, and
//! paths inside macro calls. Test code is left out.

use proc_macro2::{TokenStream, TokenTree};
use syn::spanned::Spanned as _;
use syn::visit::{self, Visit};

/// A path such as `std::net::IpAddr`, and where it stands.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Named {
    /// Its segments; an import of everything ends in `*`.
    pub(super) segments: Vec<String>,
    /// Line, from 1.
    pub(super) line: usize,
}

/// The paths of one file.
pub(super) fn named(text: &str) -> syn::Result<Vec<Named>> {
    let mut paths = Paths::default();
    paths.visit_file(&syn::parse_file(text)?);
    Ok(paths.0)
}

#[derive(Default)]
struct Paths(Vec<Named>);

impl Paths {
    fn import(&mut self, tree: &syn::UseTree, before: &mut Vec<String>) {
        let line = tree.span().start().line;
        let mut take = |last: Option<String>| {
            let segments = before.iter().cloned().chain(last).collect();
            self.0.push(Named { segments, line });
        };
        match tree {
            syn::UseTree::Path(path) => {
                before.push(path.ident.to_string());
                self.import(&path.tree, before);
                before.pop();
            }
            syn::UseTree::Group(group) => {
                for item in &group.items {
                    self.import(item, before);
                }
            }
            syn::UseTree::Name(name) if name.ident == "self" => take(None),
            syn::UseTree::Name(name) => take(Some(name.ident.to_string())),
            syn::UseTree::Rename(rename) if rename.ident == "self" => take(None),
            syn::UseTree::Rename(rename) => take(Some(rename.ident.to_string())),
            syn::UseTree::Glob(_) => take(Some("*".into())),
        }
    }

    /// What a macro is given is not parsed: identifiers joined by `::` are taken for paths.
    fn tokens(&mut self, tokens: TokenStream) {
        let mut path: Vec<String> = Vec::new();
        let mut colons = 0;
        let mut line = 0;
        for token in tokens {
            match token {
                TokenTree::Ident(ident) => {
                    if colons != 2 {
                        self.push(std::mem::take(&mut path), line);
                    }
                    line = ident.span().start().line;
                    path.push(ident.to_string());
                    colons = 0;
                }
                TokenTree::Punct(punct) if punct.as_char() == ':' => colons += 1,
                other => {
                    self.push(std::mem::take(&mut path), line);
                    colons = 0;
                    if let TokenTree::Group(group) = other {
                        self.tokens(group.stream());
                    }
                }
            }
        }
        self.push(path, line);
    }

    fn push(&mut self, segments: Vec<String>, line: usize) {
        if segments.len() > 1 {
            self.0.push(Named { segments, line });
        }
    }
}

/// Whether these attributes make an item test code.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| {
        attribute.path().is_ident("cfg")
            && attribute.parse_args::<syn::Path>().is_ok_and(|path| path.is_ident("test"))
    })
}

impl<'ast> Visit<'ast> for Paths {
    fn visit_item_mod(&mut self, module: &'ast syn::ItemMod) {
        if !is_test(&module.attrs) {
            visit::visit_item_mod(self, module);
        }
    }

    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        if !is_test(&item.attrs) {
            self.import(&item.tree, &mut Vec::new());
        }
    }

    fn visit_item_extern_crate(&mut self, item: &'ast syn::ItemExternCrate) {
        self.0.push(Named { segments: vec![item.ident.to_string()], line: item.span().start().line });
    }

    fn visit_path(&mut self, path: &'ast syn::Path) {
        let segments = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.push(segments, path.span().start().line);
        visit::visit_path(self, path);
    }

    fn visit_macro(&mut self, call: &'ast syn::Macro) {
        self.visit_path(&call.path);
        self.tokens(call.tokens.clone());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(text: &str) -> Vec<String> {
        named(text).unwrap().iter().map(|path| path.segments.join("::")).collect()
    }

    #[test]
    fn imports_are_spelled_out() {
        assert_eq!(
            paths("use std::{self, fs as f, net::{IpAddr, TcpStream}, io::*};"),
            ["std", "std::fs", "std::net::IpAddr", "std::net::TcpStream", "std::io::*"]
        );
    }

    #[test]
    fn types_calls_and_macros_are_seen() {
        let found =
            paths("fn f(a: std::net::TcpStream) { std::fs::read(x); println!(\"{}\", std::env::var(y)); }");
        for path in ["std::net::TcpStream", "std::fs::read", "std::env::var"] {
            assert!(found.iter().any(|one| one == path), "{path} in {found:?}");
        }
    }

    #[test]
    fn test_modules_are_left_out() {
        assert_eq!(paths("#[cfg(test)] mod tests { use std::fs; }"), [""; 0]);
        assert_eq!(paths("mod not_tests { use std::fs; }"), ["std::fs"]);
    }

    #[test]
    fn lines_are_told() {
        assert_eq!(named("\n\nuse std::fs;").unwrap()[0].line, 3);
    }
}
