//! Lines of connections that t3-dispatch did not carry.

use std::io::{self, Write};

use t3_record::TcpCloseRecord;

use super::{ClosesPrinter, csv, summary::Summary};
use crate::{
    present::{json, text, via},
    time::local,
};

impl<W: Write> ClosesPrinter<'_, W> {
    /// Prints a connection that t3-dispatch did not carry.
    pub(super) fn direct(
        &mut self,
        record: &TcpCloseRecord,
        host: Option<&str>,
        micros: u64,
        summary: &mut Summary,
    ) -> io::Result<()> {
        if self.args.csv {
            return writeln!(self.out, "{}", csv::direct_row(record, host, micros));
        }
        if self.args.json {
            return writeln!(self.out, "{}", json::direct_line(record, host, micros)?);
        }
        let at = micros / 1_000_000;
        if self.args.incidents {
            self.incidents.close(&record.as_close(), host, at);
            return Ok(());
        }
        summary.direct(record);
        if self.args.summary {
            return Ok(());
        }
        self.day(at)?;
        let host = self.shows_host.then(|| host.unwrap_or_default());
        let line = via::direct_line(record, &local::clock(at), host, self.paint);
        writeln!(self.out, "{}", text::folded(&line, self.width))
    }
}
