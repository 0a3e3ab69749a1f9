//! [`FromRow`] for single values, tuples and [`Row`] itself.

use mainstay_core::Result;

use crate::row::{FromRow, Row};
use crate::value::FromValue;

/// The first column.
impl<T: FromValue> FromRow for T {
    fn from_row(row: &mut Row) -> Result<Self> {
        row.take_at(0)
    }
}

/// The whole row, for answers whose columns are not known beforehand.
impl FromRow for Row {
    fn from_row(row: &mut Row) -> Result<Self> {
        Ok(Row { columns: row.columns.clone(), values: std::mem::take(&mut row.values) })
    }
}

macro_rules! tuples {
    ($($(#[$meta:meta])? ($($name:ident $index:tt),+);)+) => {$(
        $(#[$meta])?
        impl<$($name: FromValue),+> FromRow for ($($name,)+) {
            fn from_row(row: &mut Row) -> Result<Self> {
                Ok(($(row.take_at::<$name>($index)?,)+))
            }
        }
    )+};
}

tuples! {
    /// Columns in order.
    (A 0);
    (A 0, B 1);
    (A 0, B 1, C 2);
    (A 0, B 1, C 2, D 3);
    (A 0, B 1, C 2, D 3, E 4);
    (A 0, B 1, C 2, D 3, E 4, F 5);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10);
    (A 0, B 1, C 2, D 3, E 4, F 5, G 6, H 7, I 8, J 9, K 10, L 11);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::value::Value;

    fn row() -> Row {
        Row::new(["id".into(), "name".into()].into(), vec![Value::Int(1), Value::Null])
    }

    #[test]
    fn tuples_and_single_values_read_columns_in_order() {
        assert_eq!(<(i64, Option<String>)>::from_row(&mut row()).unwrap(), (1, None));
        assert_eq!(i64::from_row(&mut row()).unwrap(), 1);
        let error = <(i64, String)>::from_row(&mut row()).unwrap_err().report().to_string();
        assert!(error.starts_with("column `name`: wanted String, found NULL"), "{error}");
        let error = <(i64, Option<i64>, i64)>::from_row(&mut row()).unwrap_err().report().to_string();
        assert_eq!(error, "no column 2 in the answer, which has 2");
    }

    #[test]
    fn a_row_moves_out_whole() {
        let mut whole = Row::from_row(&mut row()).unwrap();
        assert_eq!(whole.take::<i64>("id").unwrap(), 1);
    }
}
