//! Holds the generated part of `README.md`: the table of error codes. `make generate` rewrites it.

use std::path::Path;

use parlance_proto::ErrorCodeExt as _;
use parlance_proto::v1::ErrorCode;

const BEGIN: &str = "<!-- generated: error codes (make generate) -->\n";
const END: &str = "<!-- end of generated part -->\n";

#[test]
fn the_readme_lists_every_error_code() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"));
    let proto = std::fs::read_to_string(folder.join("chat/v1/error.proto")).unwrap();
    let readme = folder.join("README.md");
    let present = std::fs::read_to_string(&readme).unwrap();
    let (before, rest) = present.split_once(BEGIN).expect("the begin marker");
    let (_, after) = rest.split_once(END).expect("the end marker");
    let wanted = format!("{before}{BEGIN}{}{END}{after}", table(&proto));
    if bless() {
        std::fs::write(&readme, wanted).unwrap();
        return;
    }
    assert_eq!(present, wanted, "README.md is out of date: run `make generate`");
}

#[expect(clippy::disallowed_methods, reason = "a test without settings of its own")]
fn bless() -> bool {
    std::env::var_os("PARLANCE_BLESS").is_some()
}

fn table(proto: &str) -> String {
    let mut table = String::from("| code | HTTP | retry | meaning |\n| --- | --- | --- | --- |\n");
    let mut comment = String::new();
    for line in proto.lines().map(str::trim) {
        if let Some(text) = line.strip_prefix("// ") {
            comment.push_str(text);
            comment.push(' ');
        } else if let Some((name, _)) = line.split_once(" = ") {
            if let Some(code) = ErrorCode::from_str_name(name)
                && code != ErrorCode::Unspecified
            {
                let retry = if code.retry() { "yes" } else { "no" };
                let (name, status) = (code.name(), code.http_status());
                let meaning = comment.trim();
                table.push_str(&format!("| `{name}` | {status} | {retry} | {meaning} |\n"));
            }
            comment.clear();
        } else {
            comment.clear();
        }
    }
    table
}
