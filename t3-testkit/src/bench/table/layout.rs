//! Cells as aligned text. Pure.

use std::fmt::Write as _;

/// A title and rows of cells. The first `left` columns are left-aligned, the others right-aligned.
pub(super) fn section(title: &str, left: usize, rows: &[Vec<String>]) -> String {
    let columns = rows.iter().map(Vec::len).max().unwrap_or(0);
    let width = |column: usize| {
        rows.iter().filter_map(|row| row.get(column)).map(|cell| cell.chars().count()).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..columns).map(width).collect();
    let mut text = format!("\n{title}\n");
    for row in rows {
        let mut line = String::new();
        for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
            let _ = if column < left {
                write!(line, "  {cell:<width$}")
            } else {
                write!(line, "  {cell:>width$}")
            };
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

/// Three significant digits, or all digits before the point.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        size if size < 9.995 => format!("{value:.2}"),
        size if size < 99.95 => format!("{value:.1}"),
        _ => format!("{value:.0}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned() {
        let row = |cells: [&str; 3]| cells.map(str::to_owned).to_vec();
        let rows = [row(["", "unit", "nginx"]), row(["echo", "µs", "1.00"]), row(["bulk", "ns", "123.45"])];
        let expected = "\ntitle\n        unit   nginx\n  echo  µs      1.00\n  bulk  ns    123.45\n";
        assert_eq!(section("title", 2, &rows), expected);
    }

    #[test]
    fn numbers_have_three_digits_or_more() {
        for (value, expected) in [
            (0.0, "0.00"),
            (0.904, "0.90"),
            (9.994, "9.99"),
            (9.996, "10.0"),
            (61.84, "61.8"),
            (272.93, "273"),
            (67_205.4, "67205"),
        ] {
            assert_eq!(number(value), expected);
        }
    }
}
