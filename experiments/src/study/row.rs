//! Rows of a study's table: plain columns, then estimates, each of which is three columns (value and 95% bounds).

/// Declares a row that the journal keeps and that a table takes: plain fields first, estimates after.
macro_rules! row {
    (
        $(#[$about:meta])*
        struct $name:ident {
            $($plain:ident: $kind:ty,)*
        }
        estimates {
            $($estimate:ident,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
        struct $name {
            $($plain: $kind,)*
            $($estimate: Option<crate::stats::Estimate>,)*
        }

        impl $name {
            /// The rows under their columns, in the order of the fields.
            fn table<'a>(rows: impl IntoIterator<Item = &'a $name>) -> crate::results::Table {
                let columns = [$(stringify!($plain)),*].into_iter().map(String::from);
                let estimates = [$(stringify!($estimate)),*];
                let estimates = estimates.into_iter().flat_map(crate::results::Table::estimate_columns);
                let mut table = crate::results::Table::new(columns.chain(estimates));
                for row in rows {
                    table.row()$(.text(&row.$plain))*$(.estimate(row.$estimate))*;
                }
                table
            }
        }
    };
}

pub(super) use row;
