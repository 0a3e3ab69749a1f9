//! Writing to standard output, where a reader that left is no failure.

use std::io::{ErrorKind, Write};

use mainstay_core::{Error, Result};

/// Prints `text`. `shop routes | head -1` closes the pipe early; that is the reader's right and not an error.
pub(crate) fn out(text: &str) -> Result<()> {
    let mut stdout = std::io::stdout().lock();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(Error::from(error).context("writing the output")),
        _ => Ok(()),
    }
}

/// Lines up `rows` in columns two spaces apart.
pub(crate) fn table<const N: usize>(rows: &[[String; N]]) -> String {
    let widths: [usize; N] =
        std::array::from_fn(|column| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0));
    let mut text = String::new();
    for row in rows {
        let cells = row.iter().zip(widths).map(|(cell, width)| format!("{cell:width$}"));
        text.push_str(cells.collect::<Vec<_>>().join("  ").trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_line_up_without_trailing_space() {
        let row = |a: &str, b: &str| [a.to_owned(), b.to_owned()];
        assert_eq!(table(&[row("GET", "/"), row("DELETE", "/x"), row("PUT", "")]), "GET     /\nDELETE  /x\nPUT\n");
    }
}
