//! [`Wire`]: a proxy that notes how each connection begins.

use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt, AsyncWriteExt, copy_bidirectional};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

pub(crate) struct Wire {
    pub(crate) port: u16,
    begun: Arc<Mutex<Vec<u8>>>,
    task: JoinHandle<()>,
}

/// The first byte of a TLS handshake.
const HANDSHAKE: u8 = 0x16;

impl Wire {
    /// Passes connections on to `port`. The client's request for TLS has `request` bytes; what follows it is noted.
    pub(crate) async fn to(port: u16, request: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let begun = Arc::new(Mutex::new(Vec::new()));
        let (own_port, noted) = (listener.local_addr().unwrap().port(), begun.clone());
        let task = tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                tokio::spawn(pass(client, port, request, noted.clone()));
            }
        });
        Self { port: own_port, begun, task }
    }

    /// How many connections there were, if every single one began TLS.
    pub(crate) fn encrypted(&self) -> usize {
        let begun = self.begun.lock().unwrap();
        assert!(begun.iter().all(|&byte| byte == HANDSHAKE), "in the clear: {begun:?}");
        begun.len()
    }
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn pass(mut client: TcpStream, port: u16, request: usize, begun: Arc<Mutex<Vec<u8>>>) {
    let Ok(server) = TcpStream::connect(("127.0.0.1", port)).await else { return };
    let (mut from_server, mut to_server) = server.into_split();
    let (mut from_client, mut to_client) = client.split();
    let first = async {
        let mut asked = vec![0; request];
        from_client.read_exact(&mut asked).await?;
        to_server.write_all(&asked).await?;
        let next = from_client.read_u8().await?;
        begun.lock().unwrap().push(next);
        to_server.write_u8(next).await
    };
    // The answer to the request has to come back meanwhile.
    let done = tokio::select! {
        done = first => done,
        _ = tokio::io::copy(&mut from_server, &mut to_client) => return,
    };
    if done.is_ok()
        && let Ok(mut server) = from_server.reunite(to_server)
    {
        let _ = copy_bidirectional(&mut client, &mut server).await;
    }
}
