//! Which paths a thread answers: learned from the application, looked up without the GIL.
//!
//! The application says of a path that it answered whether a thread may take the like of it, and which
//! of the path's segments stand for anything (those that its route captured). A request for a path
//! that nothing is known of goes to the loop, where the application finds out.
//!
//! It is a hint: whoever takes the request looks again.
//!
//! A WSGI application has no other side: threads answer all of its paths.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{PoisonError, RwLock};

/// Segments known at most: a site has some hundred routes, a scanner has thousands of paths.
const MOST: usize = 16 * 1024;

/// Longer paths are not looked at.
const DEPTH: usize = 16;

#[derive(Default)]
struct Node {
    /// Whether a thread takes the path that ends here; unknown until told.
    thread: Option<bool>,
    named: HashMap<Box<str>, Node>,
    any: Option<Box<Node>>,
}

impl Node {
    fn find(&self, mut rest: std::str::Split<'_, char>) -> Option<bool> {
        let Some(segment) = rest.next() else {
            return self.thread;
        };
        if let Some(node) = self.named.get(segment)
            && let Some(found) = node.find(rest.clone())
        {
            return Some(found);
        }
        self.any.as_ref()?.find(rest)
    }
}

#[derive(Default)]
struct Tree {
    root: Node,
    size: usize,
}

/// See the module.
#[derive(Default)]
pub struct Routes {
    tree: RwLock<Tree>,
    /// Threads take every path.
    every: AtomicBool,
}

impl Routes {
    /// Whether a thread takes this path (as it came, without a query).
    #[must_use]
    pub fn is_for_thread(&self, path: &str) -> bool {
        if self.every.load(Ordering::Relaxed) {
            return true;
        }
        // What is percent-encoded was learned decoded: rare, and the loop can deal with it.
        if path.contains('%') || path.bytes().filter(|b| *b == b'/').count() > DEPTH {
            return false;
        }
        let tree = self.tree.read().unwrap_or_else(PoisonError::into_inner);
        tree.root.find(path.split('/')) == Some(true)
    }

    /// From now on threads take every path.
    pub fn take_all(&self) {
        self.every.store(true, Ordering::Relaxed);
    }

    /// Learns of a path; its segments that are in `any` stand for anything.
    pub fn learn(&self, path: &str, any: &[String], thread: bool) {
        let segments: Vec<&str> = path.split('/').collect();
        if segments.len() > DEPTH {
            return;
        }
        let mut tree = self.tree.write().unwrap_or_else(PoisonError::into_inner);
        if tree.size + segments.len() > MOST {
            // Full of what somebody made up, or of a changed site: begin anew.
            *tree = Tree::default();
        }
        let mut added = 0;
        let mut node = &mut tree.root;
        for segment in segments {
            if !segment.is_empty() && any.iter().any(|value| value == segment) {
                node = node.any.get_or_insert_with(|| {
                    added += 1;
                    Box::default()
                });
            } else {
                if !node.named.contains_key(segment) {
                    added += 1;
                    node.named.insert(segment.into(), Node::default());
                }
                let Some(next) = node.named.get_mut(segment) else {
                    return;
                };
                node = next;
            }
        }
        node.thread = Some(thread);
        tree.size += added;
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    fn texts(any: &[&str]) -> Vec<String> {
        any.iter().map(|&text| text.to_owned()).collect()
    }

    #[test]
    fn nothing_is_known_at_first() {
        let routes = Routes::default();
        assert!(!routes.is_for_thread("/"));
        routes.learn("/", &[], true);
        assert!(routes.is_for_thread("/"));
        assert!(!routes.is_for_thread("/other"));
        assert!(!routes.is_for_thread(""));
    }

    #[test]
    fn captured_segments_stand_for_anything_and_names_come_first() {
        let routes = Routes::default();
        routes.learn("/books/7/", &texts(&["7"]), true);
        routes.learn("/books/live/", &[], false);
        assert!(routes.is_for_thread("/books/8/"));
        assert!(!routes.is_for_thread("/books/live/"));
        assert!(!routes.is_for_thread("/books/8/9/"));
        assert!(!routes.is_for_thread("/books/8"));
    }

    #[test]
    fn what_is_told_last_counts() {
        let routes = Routes::default();
        routes.learn("/a", &[], true);
        routes.learn("/a", &[], false);
        assert!(!routes.is_for_thread("/a"));
    }

    #[test]
    fn encoded_and_deep_paths_are_the_loops() {
        let routes = Routes::default();
        let deep = "/x".repeat(DEPTH + 1);
        routes.learn(&deep, &[], true);
        routes.learn("/é", &[], true);
        assert!(!routes.is_for_thread(&deep));
        assert!(!routes.is_for_thread("/%C3%A9"));
    }

    #[test]
    fn all_are_taken_if_there_is_no_other_side() {
        let routes = Routes::default();
        routes.take_all();
        for path in ["", "*", "/", "/%C3%A9", "/x".repeat(DEPTH + 1).as_str()] {
            assert!(routes.is_for_thread(path));
        }
    }

    #[test]
    fn made_up_paths_do_not_fill_the_memory() {
        let routes = Routes::default();
        for i in 0..100_000 {
            routes.learn(&format!("/{i}"), &[], true);
        }
        assert!(routes.tree.read().unwrap().size <= MOST);
        assert!(routes.is_for_thread("/99999"));
    }
}
