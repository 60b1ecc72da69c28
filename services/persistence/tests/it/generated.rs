//! Holds the generated parts of documents: the picture of the schema in `migrations/README.md`, drawn from a migrated
//! database, and the metrics of persistence in `services/README.md`. `make generate` rewrites them.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::Path;

use parlance_harness::environment;
use parlance_persistence::measures::MEASURES;

use crate::database::with_database;

const END: &str = "<!-- end of generated part -->\n";

/// What a column refers to, with the columns of which each is a part of that table's key. There are no foreign keys:
/// who writes a row holds the lock of its conversation.
const REFERENCES: &[(&str, &str)] = &[
    ("message_seq", "messages"),
    ("thread_id", "threads"),
    ("conversation_id", "conversations"),
    ("user_id", "users"),
    ("gateway", "gateways"),
    ("partition", "partition_leases"),
];

struct Column {
    name: String,
    kind: String,
    is_key: bool,
}

/// Replaces the part of a document, or holds that it is as it should be.
fn hold(document: &str, what: &str, wanted: &str) {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..").join(document);
    let begin = format!("<!-- generated: {what} (make generate) -->\n");
    let present = std::fs::read_to_string(&file).unwrap();
    let (before, rest) = present.split_once(&begin).expect("the begin marker");
    let (_, after) = rest.split_once(END).expect("the end marker");
    let wanted = format!("{before}{begin}{wanted}{END}{after}");
    if environment::variable("PARLANCE_BLESS").is_some() {
        std::fs::write(&file, wanted).unwrap();
        return;
    }
    assert_eq!(present, wanted, "{document} is out of date: run `make generate`");
}

fn drawn(tables: &BTreeMap<String, Vec<Column>>) -> String {
    let mut picture = String::from("```mermaid\nerDiagram\n");
    let mut used = BTreeSet::new();
    for (table, columns) in tables {
        let names: BTreeSet<&str> = columns.iter().map(|column| column.name.as_str()).collect();
        let key: Vec<&str> = columns
            .iter()
            .filter(|column| column.is_key)
            .map(|column| column.name.as_str())
            .collect();
        for (column, parent) in REFERENCES {
            // What belongs to a message belongs to its conversation through it.
            let is_through = *column == "conversation_id" && names.contains("message_seq");
            if table == parent || !names.contains(column) || is_through {
                continue;
            }
            used.insert(*column);
            let many = if key == [*column] { "o|" } else { "o{" };
            writeln!(picture, "  {parent} ||--{many} {table} : {column}").unwrap();
        }
    }
    for (table, columns) in tables {
        writeln!(picture, "  {table} {{").unwrap();
        for Column { name, kind, is_key } in columns {
            let key = if *is_key { " PK" } else { "" };
            writeln!(picture, "    {kind} {name}{key}").unwrap();
        }
        writeln!(picture, "  }}").unwrap();
    }
    picture.push_str("```\n");
    let known: BTreeSet<_> = REFERENCES.iter().map(|(column, _)| *column).collect();
    assert_eq!(used, known, "a reference that no table has");
    picture
}

#[tokio::test]
async fn the_picture_of_the_schema_is_that_of_a_migrated_database() {
    with_database(async |db| {
        let rows: Vec<(String, String, String, bool)> = sqlx::query_as(
            "SELECT c.relname::text, a.attname::text, format_type(a.atttypid, NULL), a.attnum = ANY (i.indkey)
             FROM pg_class c
             JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
             JOIN pg_index i ON i.indrelid = c.oid AND i.indisprimary
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
               AND c.relname <> '_sqlx_migrations'
             ORDER BY c.relname, a.attnum",
        )
        .fetch_all(&db.database.writes)
        .await
        .unwrap();
        let mut tables = BTreeMap::<String, Vec<Column>>::new();
        for (table, name, kind, is_key) in rows {
            let kind = kind.replace("timestamp with time zone", "timestamptz");
            assert!(!kind.contains(' '), "{table}.{name}: a picture has no room for {kind}");
            tables.entry(table).or_default().push(Column { name, kind, is_key });
        }
        assert!(tables.len() > 20, "{} tables", tables.len());
        hold("migrations/README.md", "schema", &drawn(&tables));
    })
    .await;
}

#[test]
fn the_reference_lists_every_metric() {
    let mut table = String::from("| metric | kind | meaning |\n| --- | --- | --- |\n");
    for measure in MEASURES {
        let labels = match measure.labels {
            [] => String::new(),
            labels => format!("{{{}}}", labels.join(",")),
        };
        let kind = format!("{:?}", measure.kind).to_lowercase();
        writeln!(
            table,
            "| `{}{labels}` | {kind} | {} |",
            measure.name, measure.help
        )
        .unwrap();
    }
    hold("services/README.md", "metrics of persistence", &table);
}
