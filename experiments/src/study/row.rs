//! Rows of a study's table: plain columns, then estimates, each of which is three columns (value and 95% bounds).

/// Declares a row that the journal keeps and that a table takes: plain fields first, estimates after.
macro_rules! row {
    (
        $(#[$about:meta])*
        $visible:vis struct $name:ident {
            $($plain:ident: $kind:ty,)*
        }
        estimates {
            $($estimate:ident,)*
        }
    ) => {
        $(#[$about])*
        #[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
        $visible struct $name {
            $($plain: $kind,)*
            $($estimate: Option<crate::stats::Estimate>,)*
        }

        impl $name {
            /// The rows under their columns, in the order of the fields.
            $visible fn table<'a>(rows: impl IntoIterator<Item = &'a $name>) -> crate::results::Table {
                let columns = [$(stringify!($plain)),*].into_iter().map(String::from);
                let estimates = [$(stringify!($estimate)),*];
                let estimates = estimates.into_iter().flat_map(crate::results::Table::estimate_columns);
                let mut table = crate::results::Table::new(columns.chain(estimates));
                for row in rows {
                    table.row()$(.text(&row.$plain))*$(.estimate(row.$estimate))*;
                }
                table
            }

            /// The columns that are estimates.
            #[allow(dead_code, reason = "not every table can be asked for precision")]
            const ESTIMATES: &'static [&'static str] = &[$(stringify!($estimate)),*];

            /// One of them, by its name.
            #[allow(dead_code, reason = "not every table can be asked for precision")]
            fn estimate(&self, column: &str) -> Option<crate::stats::Estimate> {
                let estimates = [$((stringify!($estimate), self.$estimate)),*];
                let found = estimates.into_iter().find(|(name, _): &(&str, Option<_>)| *name == column);
                found.and_then(|(_, estimate)| estimate)
            }
        }
    };
}

/// Lets a row be asked for precision; it has a column `precision_reached`, and maybe level and deadline.
macro_rules! judged {
    ($name:ident, $place:expr) => {
        impl super::precision::Judged for $name {
            const ESTIMATES: &'static [&'static str] = $name::ESTIMATES;

            fn estimate(&self, column: &str) -> Option<crate::stats::Estimate> {
                $name::estimate(self, column)
            }

            fn place(&self) -> Option<(&str, f64)> {
                let place: fn(&$name) -> Option<(&str, f64)> = $place;
                place(self)
            }

            fn note(&mut self, reached: String) {
                self.precision_reached = reached;
            }
        }
    };
}

pub(super) use {judged, row};
