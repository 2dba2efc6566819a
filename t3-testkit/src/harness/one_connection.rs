//! A server process for one connection, in an ignored test of the program that runs.

use std::{
    env,
    io::{self, BufRead, BufReader, Read, Write},
    net::{TcpListener, TcpStream},
    process::{Child, ChildStdout, Command, Stdio},
};

const ROLE: &str = "T3_TEST_SERVER";
const GREETING: &[u8] = b"hello";

/// The server process; killed on drop.
#[derive(Debug)]
pub struct OneConnection {
    child: Child,
    port: u16,
    /// Open to the end: the test harness of the child writes to it, too.
    _output: BufReader<ChildStdout>,
}

impl OneConnection {
    /// Starts the ignored test `name` of this program, which calls [`OneConnection::serve`].
    ///
    /// # Errors
    /// When the process cannot be started or prints no port.
    pub fn start(name: &str) -> io::Result<Self> {
        let mut child = Command::new(env::current_exe()?)
            .args(["--exact", name, "--ignored", "--nocapture"])
            .env(ROLE, "1")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let no_port = || io::Error::other("the server prints no port");
        let mut output = BufReader::new(child.stdout.take().ok_or_else(no_port)?);
        let lines = output.by_ref().lines().map_while(io::Result::ok);
        let port = lines.filter_map(|line| line.split_once("port ")?.1.trim().parse().ok()).next();
        Ok(Self { child, port: port.ok_or_else(no_port)?, _output: output })
    }

    /// Body of the server: prints its port, accepts one connection once a line of standard input
    /// asks for it, greets and keeps it.
    ///
    /// # Errors
    /// When it was not started by [`OneConnection::start`], or has no connection.
    pub fn serve() -> io::Result<()> {
        env::var_os(ROLE).ok_or_else(|| io::Error::other("no test started this server"))?;
        let listener = TcpListener::bind("127.0.0.1:0")?;
        println!("port {}", listener.local_addr()?.port());
        io::stdin().read_line(&mut String::new())?;
        let (mut stream, _) = listener.accept()?;
        stream.write_all(GREETING)?;
        // A client that resets ends it as well.
        let _ = stream.read_to_end(&mut Vec::new());
        Ok(())
    }

    #[must_use]
    pub fn port(&self) -> u16 {
        self.port
    }

    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The connection to it, accepted and greeted.
    ///
    /// # Errors
    /// When the process has ended or the connection fails.
    pub fn connect(&mut self) -> io::Result<TcpStream> {
        let input = self.child.stdin.as_mut();
        input.ok_or_else(|| io::Error::other("no input"))?.write_all(b"\n")?;
        let mut stream = TcpStream::connect(("127.0.0.1", self.port))?;
        stream.read_exact(&mut [0; GREETING.len()])?;
        Ok(stream)
    }

    /// Kills it by SIGKILL and waits for its end.
    ///
    /// # Errors
    /// When it has been waited for before.
    pub fn kill(&mut self) -> io::Result<()> {
        self.child.kill()?;
        self.child.wait().map(drop)
    }
}

impl Drop for OneConnection {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
