//! The limit of open files; in a process of its own, because it is the process's.

use parlance_runtime::startup::raise_file_limit;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

#[test]
fn a_process_may_open_as_many_files_as_it_is_allowed() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    let low = Rlimit {
        current: Some(64),
        maximum,
    };
    setrlimit(Resource::Nofile, low).unwrap();
    assert_eq!(raise_file_limit().unwrap(), maximum);
    assert_eq!(getrlimit(Resource::Nofile).current, maximum);
}
