//! A folder to serve, and how it is asked.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rondel_http::{Config, Mount, Statics};

use crate::support::{Client, Host, Reply};

/// More than goes out with the head, and than a burst of `sendfile`.
pub(crate) const LARGE: usize = 3_000_001;

/// Long ago, so that a date tells states apart: Sun, 06 Nov 1994 08:49:37 GMT.
pub(crate) const THEN: u64 = 784_111_777;
pub(crate) const DATE: &str = "Sun, 06 Nov 1994 08:49:37 GMT";

/// A folder of files, and one beside it that must stay hidden; gone with the test.
pub(crate) struct Site {
    pub(crate) root: PathBuf,
}

impl Site {
    pub(crate) fn new(name: &str) -> Site {
        let unique = format!("rondel-statics-{}-{name}", std::process::id());
        let site = Site {
            root: std::env::temp_dir().join(unique),
        };
        fs::create_dir_all(site.root.join("public")).unwrap();
        fs::write(site.root.join("secret"), "secret").unwrap();
        site.put("hello.txt", b"hello, file");
        site
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root.join("public").join(name)
    }

    pub(crate) fn put(&self, name: &str, content: &[u8]) {
        let path = self.path(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        age(&path, Duration::from_secs(THEN));
    }

    pub(crate) fn host(&self, route: &str) -> Host {
        self.host_with(route, |statics| statics)
    }

    /// With files that are looked up by threads, as if nothing were in memory.
    pub(crate) fn slow_host(&self, route: &str) -> Host {
        self.host_with(route, Statics::all_by_threads)
    }

    pub(crate) fn host_with(
        &self,
        route: &str,
        set: impl FnOnce(Statics) -> Statics + Send + 'static,
    ) -> Host {
        let mount = Mount {
            route: route.to_owned(),
            folder: self.root.join("public"),
        };
        Host::with_files(Config::default(), vec![mount], set)
    }
}

impl Drop for Site {
    fn drop(&mut self) {
        fs::remove_dir_all(&self.root).unwrap();
    }
}

pub(crate) fn age(path: &Path, since: Duration) {
    let file = fs::File::options().write(true).open(path).unwrap();
    file.set_modified(SystemTime::UNIX_EPOCH + since).unwrap();
}

pub(crate) fn ask(client: &mut Client, method: &str, path: &str, headers: &str) -> Reply {
    client.request(method, path, headers);
    if method == "HEAD" {
        client.head()
    } else {
        client.reply()
    }
}

/// The application answers what is no file: with 404, in these tests.
pub(crate) fn is_the_applications(host: &Host, client: &mut Client, path: &str) {
    let reply = client.get(path);
    assert_eq!((reply.status, reply.text()), (404, "body"), "{path}");
    host.expect(&format!("call {}", path.split('?').next().unwrap()));
}
