//! A table as text. Pure.

use std::ops::Range;

/// Lines of columns that are two spaces apart, each as wide as its longest text. `numbers` are aligned to the right.
pub(super) fn table(rows: &[Vec<String>], numbers: Range<usize>) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let length = |row: &Vec<String>, column| row.get(column).map_or(0, |text: &String| text.chars().count());
    let width = |column| rows.iter().map(|row| length(row, column)).max();
    let widths: Vec<usize> = (0..columns).map(|column| width(column).unwrap_or(0)).collect();
    let line = |row: &Vec<String>| {
        let cell = |(column, text): (usize, &String)| match widths[column] {
            width if numbers.contains(&column) => format!("{text:>width$}"),
            width => format!("{text:<width$}"),
        };
        let cells: Vec<String> = row.iter().enumerate().map(cell).collect();
        format!("{}\n", cells.join("  ").trim_end())
    };
    rows.iter().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_text() {
        let row = |texts: [&str; 3]| texts.map(str::to_owned).to_vec();
        let shown = table(&[row(["lane", "pending", ""]), row(["0", "7", "é"])], 1..2);
        assert_eq!(shown, "lane  pending\n0           7  é\n");
    }
}
