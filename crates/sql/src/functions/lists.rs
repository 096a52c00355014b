//! The names of DataFusion's functions that a question may call.
//!
//! Left out, each for a reason: what makes gigabytes of a few bytes without being asked twice
//! (`array_repeat`, `array_resize`, the scalar `range` and `generate_series`, `arrow_cast`, whose
//! fixed-size types allocate before any row is there, `approx_percentile_cont`, whose sketch does),
//! what takes time by the square (`levenshtein`), what tells of files (`input_file_name`).

#[rustfmt::skip]
pub(super) const SCALARS: &[&str] = &[
    // any type
    "nullif", "nvl", "nvl2", "coalesce", "greatest", "least", "arrow_typeof", "named_struct",
    "get_field", "struct", "overlay",
    // text
    "ascii", "bit_length", "btrim", "chr", "concat", "concat_ws", "ends_with", "lower", "ltrim",
    "octet_length", "repeat", "replace", "rtrim", "split_part", "starts_with", "to_hex", "upper",
    "uuid", "contains", "character_length", "find_in_set", "initcap", "left", "lpad", "reverse",
    "right", "rpad", "strpos", "substr", "substr_index", "translate",
    "regexp_count", "regexp_match", "regexp_instr", "regexp_like", "regexp_replace",
    // time
    "current_date", "current_time", "date_bin", "date_part", "date_trunc", "from_unixtime",
    "make_date", "make_time", "now", "to_char", "to_date", "to_local_time", "to_time",
    "to_unixtime", "to_timestamp", "to_timestamp_seconds", "to_timestamp_millis",
    "to_timestamp_micros", "to_timestamp_nanos",
    // numbers
    "abs", "acos", "acosh", "asin", "asinh", "atan", "atan2", "atanh", "cbrt", "ceil", "cos",
    "cosh", "cot", "degrees", "exp", "factorial", "floor", "gcd", "isnan", "iszero", "lcm", "ln",
    "log", "log2", "log10", "nanvl", "pi", "power", "radians", "random", "signum", "sin", "sinh",
    "sqrt", "tan", "tanh", "round", "trunc",
    // lists and maps
    "array_to_string", "string_to_array", "array_dims", "array_ndims", "cardinality",
    "array_append", "array_prepend", "array_concat", "array_except", "array_element",
    "array_pop_back", "array_pop_front", "array_slice", "array_any_value", "make_array",
    "array_has", "array_has_all", "array_has_any", "empty", "array_length", "array_sum",
    "array_avg", "flatten", "array_max", "array_min", "array_sort", "array_reverse",
    "array_distinct", "array_intersect", "array_union", "array_position", "array_positions",
    "array_remove", "array_remove_all", "array_replace", "array_replace_all", "map",
    "map_entries", "map_extract", "map_keys", "map_values",
];

#[rustfmt::skip]
pub(super) const AGGREGATES: &[&str] = &[
    "any_value", "array_agg", "first_value", "last_value", "covar_samp", "covar_pop", "corr",
    "sum", "max", "min", "median", "count", "regr_slope", "regr_intercept", "regr_count",
    "regr_r2", "regr_avgx", "regr_avgy", "regr_sxx", "regr_syy", "regr_sxy", "var", "var_pop",
    "stddev", "stddev_pop", "approx_median", "approx_distinct", "percentile_cont", "string_agg",
    "bit_and", "bit_or", "bit_xor", "bool_and", "bool_or", "avg", "grouping", "nth_value",
];

#[rustfmt::skip]
pub(super) const WINDOWS: &[&str] = &[
    "cume_dist", "row_number", "lead", "lag", "rank", "dense_rank", "percent_rank", "ntile",
    "first_value", "last_value", "nth_value",
];

pub(super) const TABLES: &[&str] = &["generate_series", "range"];

#[cfg(test)]
mod tests {
    use super::*;
    use datafusion::execution::SessionStateDefaults as Defaults;
    use std::collections::BTreeSet;

    #[test]
    fn every_listed_function_is_there_and_the_dangerous_ones_are_not_listed() {
        let scalars = Defaults::default_scalar_functions();
        let aggregates = Defaults::default_aggregate_functions();
        let windows = Defaults::default_window_functions();
        let tables = Defaults::default_table_functions();
        let all = [
            (
                SCALARS,
                scalars.iter().map(|f| f.name()).collect::<BTreeSet<_>>(),
            ),
            (AGGREGATES, aggregates.iter().map(|f| f.name()).collect()),
            (WINDOWS, windows.iter().map(|f| f.name()).collect()),
            (TABLES, tables.iter().map(|f| f.name()).collect()),
        ];
        for (listed, there) in &all {
            let missing: Vec<_> = listed.iter().filter(|n| !there.contains(**n)).collect();
            assert!(missing.is_empty(), "listed, but unknown: {missing:?}");
        }
        for name in [
            "array_repeat",
            "arrow_cast",
            "levenshtein",
            "input_file_name",
            "range",
        ] {
            assert!(all[0].1.contains(name), "{name} is not in the way any more");
            assert!(!SCALARS.contains(&name), "{name}");
        }
    }
}
