//! What `cowctl dump` says, looked through.

use serde_json::Value;

/// The block of the map leaf with that index, wherever a dump of a map has it.
pub fn leaf_of(dump: &Value, index: u64) -> Option<u64> {
    match dump {
        Value::Object(fields) => {
            let is_leaf = fields.get("level").is_some_and(|level| level == 0)
                && fields.get("index").is_some_and(|found| found == index);
            let block = ["block", "phys"].iter().find_map(|key| fields.get(*key)?.as_u64());
            if is_leaf && block.is_some() {
                return block;
            }
            fields.values().find_map(|value| leaf_of(value, index))
        }
        Value::Array(values) => values.iter().find_map(|value| leaf_of(value, index)),
        _ => None,
    }
}
