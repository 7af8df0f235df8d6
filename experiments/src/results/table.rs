//! Tidy tables: what goes into a CSV file and what figures and reports are made from.

use super::ResultsError;
use crate::stats::Estimate;
use serde::Serialize;
use std::path::Path;

/// A table of text cells under named columns.
///
/// Units belong in the names (`deadline_s`, `mistakes_per_s`). A value that doesn't exist is an empty cell; `NaN` is
/// never written, because every reader treats it differently.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Table {
    columns: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// A row being filled from left to right; see [`Table::row`].
#[derive(Debug)]
pub struct Row<'a>(&'a mut Vec<String>);

impl Table {
    /// An empty table.
    pub fn new<C: Into<String>>(columns: impl IntoIterator<Item = C>) -> Self {
        Table { columns: columns.into_iter().map(Into::into).collect(), rows: Vec::new() }
    }

    /// A table from flat structs; field names become column names, `None` and NaN empty cells.
    ///
    /// # Errors
    /// Says which row can't be written flat: nested sequences and maps have no place in a CSV.
    pub fn from_rows<R: Serialize>(rows: &[R]) -> Result<Self, ResultsError> {
        let malformed = |error: csv::Error| ResultsError::Malformed { path: "rows".into(), reason: error.to_string() };
        let mut writer = csv::Writer::from_writer(Vec::new());
        rows.iter().try_for_each(|row| writer.serialize(row)).map_err(malformed)?;
        let bytes = writer.into_inner().expect("writing to memory succeeds");
        let mut table = Self::parse(&bytes).map_err(malformed)?;
        for cell in table.rows.iter_mut().flatten().filter(|cell| *cell == "NaN") {
            cell.clear();
        }
        Ok(table)
    }

    /// Reads a CSV file with a head line.
    ///
    /// # Errors
    /// I/O, or text that is no CSV.
    pub fn read(path: &Path) -> Result<Self, ResultsError> {
        let bytes = std::fs::read(path).map_err(ResultsError::io("read", path))?;
        let malformed = |reason: String| ResultsError::Malformed { path: path.to_path_buf(), reason };
        let table = Self::parse(&bytes).map_err(|error| malformed(error.to_string()))?;
        table.check_numbers().map_err(malformed)?;
        Ok(table)
    }

    /// Names the first cell that is no number in a column of numbers, which only an edit by hand can leave there: it
    /// would be missing from the figures without a word.
    fn check_numbers(&self) -> Result<(), String> {
        let number = |cell: &str| cell.parse::<f64>().is_ok_and(f64::is_finite);
        for name in &self.columns {
            let cells = self.texts(name).unwrap_or_default();
            let wrong = cells.iter().position(|cell| !cell.is_empty() && !number(cell));
            if let (Some(row), true) = (wrong, cells.iter().any(|cell| number(cell))) {
                let cell: String = cells[row].chars().take(40).collect();
                return Err(format!("row {}: '{cell}' in column '{name}' is no number", row + 1));
            }
        }
        Ok(())
    }

    fn parse(bytes: &[u8]) -> Result<Self, csv::Error> {
        let mut reader = csv::Reader::from_reader(bytes);
        let texts = |record: &csv::StringRecord| record.iter().map(str::to_string).collect::<Vec<_>>();
        let columns = texts(reader.headers()?);
        let rows = reader.records().map(|record| record.map(|r| texts(&r))).collect::<Result<_, _>>()?;
        Ok(Table { columns, rows })
    }

    /// Starts a new row.
    pub fn row(&mut self) -> Row<'_> {
        self.rows.push(Vec::with_capacity(self.columns.len()));
        Row(self.rows.last_mut().expect("just pushed"))
    }

    /// The column names.
    pub fn columns(&self) -> &[String] {
        &self.columns
    }

    /// The cells, row by row.
    pub fn rows(&self) -> &[Vec<String>] {
        &self.rows
    }

    /// Whether there is no row.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The cells of a column; `None` when there is no such column.
    pub fn texts(&self, column: &str) -> Option<Vec<&str>> {
        let index = self.columns.iter().position(|name| name == column)?;
        Some(self.rows.iter().map(|row| row.get(index).map_or("", String::as_str)).collect())
    }

    /// The numbers of a column; a cell that is empty or no number is `None`.
    pub fn numbers(&self, column: &str) -> Option<Vec<Option<f64>>> {
        let number = |text: &str| text.parse::<f64>().ok().filter(|number| number.is_finite());
        Some(self.texts(column)?.into_iter().map(number).collect())
    }

    /// The estimates of columns `NAME`, `NAME_low`, `NAME_high`, as written by [`Row::estimate`].
    pub fn estimates(&self, column: &str) -> Option<Vec<Option<Estimate>>> {
        let values = self.numbers(column)?;
        let bound = |suffix| self.numbers(&format!("{column}_{suffix}")).unwrap_or_else(|| vec![None; values.len()]);
        let bounds = bound("low").into_iter().zip(bound("high"));
        let join = |(value, (low, high)): (&Option<f64>, _)| value.map(|value| Estimate { value, low, high });
        Some(values.iter().zip(bounds).map(join).collect())
    }

    /// The names of an estimate's three columns.
    pub fn estimate_columns(name: &str) -> [String; 3] {
        [name.to_string(), format!("{name}_low"), format!("{name}_high")]
    }

    /// The rows in which `column` is `text`, in order.
    pub fn filter(&self, column: &str, text: &str) -> Table {
        let keep = self.texts(column).unwrap_or_default();
        let rows = self.rows.iter().zip(keep).filter(|(_, cell)| *cell == text).map(|(row, _)| row.clone());
        Table { columns: self.columns.clone(), rows: rows.collect() }
    }

    /// The distinct cells of a column in order of appearance, each with its rows: one series of a figure each.
    pub fn groups(&self, column: &str) -> Vec<(String, Table)> {
        let mut names: Vec<&str> = Vec::new();
        for text in self.texts(column).unwrap_or_default() {
            if !names.contains(&text) {
                names.push(text);
            }
        }
        names.into_iter().map(|name| (name.to_string(), self.filter(column, name))).collect()
    }

    /// The CSV text, with a head line and Unix line ends.
    ///
    /// # Panics
    /// When a row has more or fewer cells than there are columns: a mistake in the program, not in the data.
    pub fn to_csv(&self) -> String {
        csv_text([&self.columns]) + &self.to_csv_without_head()
    }

    /// The same without the head line, to go on where one is written already.
    ///
    /// # Panics
    /// As [`Table::to_csv`].
    pub fn to_csv_without_head(&self) -> String {
        for row in &self.rows {
            assert_eq!(row.len(), self.columns.len(), "row {row:?} under columns {:?}", self.columns);
        }
        csv_text(&self.rows)
    }
}

fn csv_text<'a>(records: impl IntoIterator<Item = &'a Vec<String>>) -> String {
    let mut writer = csv::Writer::from_writer(Vec::new());
    for record in records {
        writer.write_record(record).expect("writing to memory succeeds");
    }
    String::from_utf8(writer.into_inner().expect("writing to memory succeeds")).expect("cells are text")
}

impl Row<'_> {
    /// A text cell.
    pub fn text(self, text: impl ToString) -> Self {
        self.0.push(text.to_string());
        self
    }

    /// A number, shortest text that reads back as the same; anything not finite is an empty cell.
    pub fn number(self, number: impl Into<f64>) -> Self {
        self.optional(Some(number.into()))
    }

    /// A whole number, exact beyond 2^53.
    pub fn integer(self, number: u64) -> Self {
        self.text(number)
    }

    /// A number or an empty cell.
    pub fn optional(self, number: Option<f64>) -> Self {
        let text = number.filter(|number| number.is_finite()).map_or(String::new(), |number| number.to_string());
        self.text(text)
    }

    /// Three cells: value, low, high; see [`Table::estimate_columns`].
    pub fn estimate(self, estimate: Option<Estimate>) -> Self {
        let low = estimate.and_then(|e| e.low);
        let high = estimate.and_then(|e| e.high);
        self.optional(estimate.map(|e| e.value)).optional(low).optional(high)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn missing_is_empty_and_numbers_read_back() {
        let mut table = Table::new(["name", "x", "x_low", "x_high", "n"]);
        table.row().text("a,b").estimate(Some(Estimate { value: 0.1, low: Some(0.0), high: None })).integer(u64::MAX);
        table.row().text("c").estimate(None).number(f64::NAN);
        let csv = table.to_csv();
        assert_eq!(csv, "name,x,x_low,x_high,n\n\"a,b\",0.1,0,,18446744073709551615\nc,,,,\n");
        let back = Table::parse(csv.as_bytes()).unwrap();
        assert_eq!(back, table);
        assert_eq!(back.estimates("x").unwrap(), [Some(Estimate { value: 0.1, low: Some(0.0), high: None }), None]);
        assert_eq!(back.groups("name").len(), 2);
        assert_eq!(back.numbers("none"), None);
    }

    #[test]
    fn a_spoilt_number_is_named() {
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("a.csv");
        let read = |text: &str| {
            std::fs::write(&path, text).unwrap();
            Table::read(&path).map_err(|error| error.to_string())
        };
        assert!(read("name,x\na,1\nb,\nc,2.5\n").is_ok());
        for bad in ["1x", "NaN", "1e999", "-inf"] {
            let message = read(&format!("name,x\na,1\nb,{bad}\n")).unwrap_err();
            assert!(message.ends_with(&format!("a.csv: row 2: '{bad}' in column 'x' is no number")), "{message}");
        }
    }

    #[test]
    fn structs_become_rows() {
        #[derive(Serialize)]
        struct R {
            deadline_s: f64,
            rate: Option<f64>,
        }
        let rows = [R { deadline_s: 0.5, rate: None }, R { deadline_s: f64::NAN, rate: Some(2.0) }];
        assert_eq!(Table::from_rows(&rows).unwrap().to_csv(), "deadline_s,rate\n0.5,\n,2.0\n");
    }
}
