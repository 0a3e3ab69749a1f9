//! [`Watched`]: a client of server-sent events that reads them as they come.

use mainstay::prelude::*;
use mainstay_testing::TestApp;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;

/// The changes of an order, as they come.
pub(crate) struct Watched {
    lines: Lines<BufReader<TcpStream>>,
    /// The status of the answer.
    pub(crate) status: String,
}

impl Watched {
    /// Watches the order `id` from after the event `last`.
    pub(crate) async fn open(app: &TestApp, id: Uuid, last: Option<&str>) -> Result<Self> {
        let last = last.map(|last| format!("last-event-id: {last}\r\n")).unwrap_or_default();
        let head = format!("GET /v1/orders/{id}/events HTTP/1.1\r\nhost: shop\r\nconnection: close\r\n{last}\r\n");
        let mut socket = TcpStream::connect(app.http_addr()).await?;
        socket.write_all(head.as_bytes()).await?;
        let mut lines = BufReader::new(socket).lines();
        let first = lines.next_line().await?.unwrap_or_default();
        let status = first.split(' ').nth(1).unwrap_or_default().to_owned();
        Ok(Self { lines, status })
    }

    /// The next event as its id and its status; `None` at a proper end, and an error when it was cut off.
    pub(crate) async fn next(&mut self) -> Result<Option<(String, String)>> {
        let mut id = String::new();
        // Between the fields stand the head, the sizes of chunks and comments.
        while let Some(line) = self.lines.next_line().await? {
            if let Some(text) = line.strip_prefix("id: ") {
                text.clone_into(&mut id);
            } else if let Some(data) = line.strip_prefix("data: ") {
                let change: Value = serde_json::from_str(data)?;
                assert_eq!(change["number"].to_string(), id);
                return Ok(Some((id, change["status"].as_str().unwrap_or_default().to_owned())));
            } else if line == "0" {
                return Ok(None);
            }
        }
        Err(Error::data_loss("the stream was cut off"))
    }

    /// The statuses of the next events, with their ids.
    pub(crate) async fn expect(&mut self, changes: &[(&str, &str)]) -> Result<()> {
        for (id, status) in changes {
            let next = self.next().await?;
            let next = next.as_ref().map(|(id, status)| (id.as_str(), status.as_str()));
            assert_eq!(next, Some((*id, *status)));
        }
        Ok(())
    }
}
