//! Temperatures, from the kernel's hwmon and thermal classes in sysfs
//! (Documentation/hwmon/sysfs-interface.rst, Documentation/driver-api/thermal/sysfs-api.rst).

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use log::{debug, warn};

use super::metric_name::SegmentRegistry;
use super::probe::TimedProbe;
use crate::btree::InsertAll;

/// The most sensors.
const MAX_SENSORS: usize = 32;
/// In thousandths of a degree; a sensor that is broken or not connected gives a value beyond.
const PLAUSIBLE: std::ops::RangeInclusive<i64> = -60_000..=200_000;

/// A chip with sensors, or a thermal zone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chip {
    folder: PathBuf,
    zone: bool,
    /// What its driver calls it.
    name: String,
    /// What it is a part of, whatever number the kernel gave it.
    device: String,
}

impl Chip {
    fn read(folder: PathBuf, zone: bool) -> Option<Chip> {
        // A constant of the driver: nothing is asked that may hang.
        let name = read_word(&folder.join(if zone { "type" } else { "name" }))?;
        let device = device(&folder);
        Some(Chip { folder, zone, name, device })
    }

    /// What identifies it.
    fn identity(&self) -> String {
        format!("{} {} {}", self.device, self.name, if self.zone { "zone" } else { "chip" })
    }
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.folder.display().fmt(f)
    }
}

/// One sensor of a chip.
#[derive(Clone, Debug, PartialEq)]
struct SensorReading {
    /// Its number on the chip.
    number: u32,
    /// Chip and label.
    name: String,
    /// Degrees Celsius; none when it cannot be read now.
    celsius: Option<f64>,
}

/// Reads the sensors, and waits for none that hangs: some sit behind slow buses, and the
/// controllers of dying disks.
///
/// A path belongs to a sensor of a device. It is reserved while the sensor cannot be read, and when
/// the device is gone: else the next one of the same name would seem to be that one.
pub struct Sensors {
    probe: TimedProbe<Chip, Vec<SensorReading>>,
    /// The sensors of each chip that was read, by its identity.
    known: BTreeMap<String, Vec<SensorReading>>,
    names: SegmentRegistry,
    /// The file that keeps the names, and what is in it.
    file: Option<PathBuf>,
    stored: SegmentRegistry,
    /// The names of the last start were compared with what is there now.
    started: bool,
    left_out: BTreeSet<String>,
}

impl Sensors {
    /// Nothing was read yet. The names are those in `file`, if there is one: a disk that has died is gone
    /// after a reboot, and still the other one is not called like it.
    pub fn new(file: Option<PathBuf>) -> Sensors {
        let bytes = file.as_ref().and_then(|file| fs::read(file).ok());
        let stored: SegmentRegistry =
            bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok()).unwrap_or_default();
        Sensors {
            probe: TimedProbe::new("the sensor", read_chip),
            known: BTreeMap::new(),
            names: stored.clone(),
            file,
            stored,
            started: false,
            left_out: BTreeSet::new(),
        }
    }

    /// The metrics of all sensors that can be read.
    pub fn collect(&mut self, sys: &Path) -> Vec<(String, f64)> {
        let chips = chips(sys);
        let readings = self.probe.read_all(&chips);
        for (chip, reading) in chips.iter().zip(&readings) {
            if let Some(reading) = reading {
                self.known.insert(chip.identity(), reading.clone());
            }
        }
        let mut things = Vec::new();
        let mut values = Vec::new();
        let mut seen: BTreeMap<String, u32> = BTreeMap::new();
        for (chip, reading) in chips.iter().zip(readings) {
            let count = seen.entry(chip.identity()).or_default();
            *count += 1;
            for sensor in reading.unwrap_or_else(|| self.assumed(chip, &chips)) {
                let identity = format!("{} {count} {}", chip.identity(), sensor.number);
                things.push((sensor.name, identity));
                values.push(sensor.celsius);
            }
        }
        if !std::mem::replace(&mut self.started, true) {
            self.names.take_over(&things);
        }
        let names = self.names.assign(things);
        self.store_names();
        let read = names.into_iter().zip(values);
        let mut metrics: Vec<(String, f64)> =
            read.filter_map(|(name, value)| Some((format!("{name}.celsius"), value?))).collect();
        let left_out = metrics.split_off(MAX_SENSORS.min(metrics.len()));
        self.log_left_out(left_out.into_iter().map(|(path, _)| path).insert_all());
        self.known.retain(|identity, _| seen.contains_key(identity));
        metrics
    }

    /// The sensors of a chip that hangs: as they were read before, else like those of another chip of
    /// the same driver.
    fn assumed(&self, chip: &Chip, chips: &[Chip]) -> Vec<SensorReading> {
        let alike = chips.iter().filter(|other| other.name == chip.name && other.zone == chip.zone);
        let known = [chip].into_iter().chain(alike).find_map(|c| self.known.get(&c.identity()));
        let unread = |sensor: &SensorReading| SensorReading { celsius: None, ..sensor.clone() };
        known.into_iter().flatten().map(unread).collect()
    }

    /// Keeps the names for the next start, when there are new ones.
    fn store_names(&mut self) {
        let Some(file) = self.file.as_ref().filter(|_| self.names != self.stored) else { return };
        self.stored = self.names.clone();
        let new = file.with_extension("new");
        let bytes = serde_json::to_vec(&self.names).expect("texts always serialize");
        if let Err(why) = fs::write(&new, bytes).and_then(|()| fs::rename(&new, file)) {
            debug!("{} cannot be written: {why}", file.display());
        }
    }

    fn log_left_out(&mut self, paths: BTreeSet<String>) {
        if !paths.is_subset(&self.left_out) {
            let named: Vec<&str> = paths.iter().map(String::as_str).collect();
            warn!("more than {MAX_SENSORS} sensors: these are left out: {}", named.join(", "));
        }
        self.left_out = paths;
    }
}

/// `cpu-thermal` the zone is `cpu_thermal` the chip: hwmon does not allow dashes.
fn same_name(one: &str, other: &str) -> bool {
    one.replace('-', "_") == other.replace('-', "_")
}

/// All chips, then the zones that are not there a second time as chips of the same name; each in the
/// order of their devices.
fn chips(sys: &Path) -> Vec<Chip> {
    let all = |class: &str, prefix: &str| {
        let zone = class == "thermal";
        let mut found: Vec<(u32, PathBuf)> = numbered(&sys.join("class").join(class), prefix, "");
        found.sort_unstable();
        let read = found.into_iter().filter_map(|(_, folder)| Chip::read(folder, zone));
        let mut chips: Vec<Chip> = read.collect();
        chips.sort_unstable_by_key(|chip| natural_order(&chip.device));
        chips
    };
    let mut chips = all("hwmon", "hwmon");
    let is_chip = |name: &str| chips.iter().any(|chip| same_name(&chip.name, name));
    let zones: Vec<Chip> =
        all("thermal", "thermal_zone").into_iter().filter(|zone| !is_chip(&zone.name)).collect();
    chips.extend(zones);
    chips
}

/// The place of a chip's device in sysfs, without the numbers that a device gets anew whenever it is
/// found; the folder of a chip that has no device.
fn device(folder: &Path) -> String {
    let link = folder.join("device");
    let place = fs::canonicalize(&link).map(|place| without_instances(&place.to_string_lossy()));
    let place = place.or_else(|_| fs::read_link(&link).map(|target| target.display().to_string()));
    place.unwrap_or_else(|_| {
        fs::canonicalize(folder).unwrap_or_else(|_| folder.to_owned()).display().to_string()
    })
}

/// `0000:01:00.0/nvme/nvme1` is the `nvme` on its bus, `0003:1E71:2007.0004` a `0003:1E71:2007` on its
/// port, `ata2/host5/target5:0:0/5:0:0:0` the unit `0:0:0` behind `ata2`.
fn without_instances(place: &str) -> String {
    let mut components: Vec<&str> = place.split('/').collect();
    if let Some(port) = components.iter().position(|component| is_numbered(component, "ata")) {
        let unit = components.last().and_then(|address| address.split_once(':'));
        components.truncate(port + 1);
        components.extend(unit.map(|(_, unit)| unit));
    }
    for index in 2..components.len() {
        let [bus, class, component] = [2, 1, 0].map(|above| components[index - above]);
        components[index] = match (class, component.rsplit_once('.')) {
            // The only one of its class there, and not one of all in the machine.
            ("nvme", _) if bus.contains([':', '.']) && is_numbered(component, "nvme") => "nvme",
            ("ieee80211", _) if is_numbered(component, "phy") => "phy",
            (_, Some((device, _))) if device.split(':').map(str::len).eq([4, 4, 4]) => device,
            _ => component,
        };
    }
    components.join("/")
}

fn is_numbered(component: &str, prefix: &str) -> bool {
    let number = component.strip_prefix(prefix);
    number.is_some_and(|number| number.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Numbers in a text count as numbers: `ata2` is before `ata10`.
fn natural_order(text: &str) -> Vec<(String, u64)> {
    let mut parts = vec![(String::new(), 0)];
    let mut in_number = false;
    for letter in text.chars() {
        let digit = letter.to_digit(10).map(u64::from);
        if digit.is_none() && in_number {
            parts.push((String::new(), 0));
        }
        in_number = digit.is_some();
        if let Some((word, number)) = parts.last_mut() {
            match digit {
                Some(digit) => *number = u64::saturating_mul(*number, 10).saturating_add(digit),
                None => word.push(letter),
            }
        }
    }
    parts
}

/// Entries that are called `prefix`, a number and `suffix`.
fn numbered(folder: &Path, prefix: &str, suffix: &str) -> Vec<(u32, PathBuf)> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    let of_entry = |entry: fs::DirEntry| {
        let name = entry.file_name();
        let number = name.to_str()?.strip_prefix(prefix)?.strip_suffix(suffix)?;
        Some((number.parse().ok()?, entry.path()))
    };
    entries.filter_map(of_entry).collect()
}

fn read_chip(chip: &Chip) -> Option<Vec<SensorReading>> {
    let name = &chip.name;
    if chip.zone {
        let celsius = celsius(&chip.folder.join("temp"));
        return Some(vec![SensorReading { number: 0, name: name.clone(), celsius }]);
    }
    let mut inputs = numbered(&chip.folder, "temp", "_input");
    // Until Linux 3.15 the files of some chips lay one folder below.
    if inputs.is_empty() {
        inputs = numbered(&chip.folder.join("device"), "temp", "_input");
    }
    inputs.sort_unstable();
    let alone = inputs.len() == 1;
    let sensor = |(number, input): (u32, PathBuf)| {
        let beside = |what: &str| read_word(&input.with_file_name(format!("temp{number}_{what}")));
        let name = match beside("label") {
            Some(label) => format!("{name}_{}", label.to_lowercase()),
            None if alone => name.clone(),
            None => format!("{name}_temp{number}"),
        };
        let broken = beside("fault").is_some_and(|fault| fault == "1");
        let celsius = if broken { None } else { celsius(&input) };
        SensorReading { number, name, celsius }
    };
    Some(inputs.into_iter().map(sensor).collect())
}

fn read_word(path: &Path) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

/// None for a sensor that cannot be read now, or whose value is not plausible.
fn celsius(path: &Path) -> Option<f64> {
    let thousandths: i64 = read_word(path)?.parse().ok()?;
    PLAUSIBLE.contains(&thousandths).then(|| thousandths as f64 / 1000.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = folder.path().join("class").join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, format!("{text}\n")).unwrap();
        }
        folder
    }

    fn told(files: &[(&str, &str)]) -> Vec<(String, f64)> {
        Sensors::new(None).collect(machine(files).path())
    }

    #[test]
    fn a_server_names_its_sensors_by_their_labels() {
        let metrics = told(&[
            ("hwmon/hwmon0/name", "coretemp"),
            ("hwmon/hwmon0/temp1_input", "45000"),
            ("hwmon/hwmon0/temp1_label", "Package id 0"),
            ("hwmon/hwmon0/temp10_input", "44000"),
            ("hwmon/hwmon0/temp10_label", "Core 8"),
            ("hwmon/hwmon0/temp2_input", "43000"),
            ("hwmon/hwmon0/temp2_label", "Core 0"),
            ("hwmon/hwmon0/temp2_max", "90000"),
            ("hwmon/hwmon1/name", "nvme"),
            ("hwmon/hwmon1/temp1_input", "38850"),
            ("hwmon/hwmon1/temp1_label", "Composite"),
            ("hwmon/hwmon2/name", "nvme"),
            ("hwmon/hwmon2/temp1_input", "39850"),
            ("hwmon/hwmon2/temp1_label", "Composite"),
            ("hwmon/hwmon10/name", "nct6775"),
            ("hwmon/hwmon10/temp1_input", "30500"),
            ("hwmon/hwmon10/temp2_input", "-128000"),
            ("hwmon/hwmon10/in0_input", "1000"),
            ("hwmon/hwmon11/name", "fan"),
        ]);
        let shown: Vec<String> =
            metrics.iter().map(|(name, value)| format!("{name} {value}")).collect();
        assert_eq!(
            shown,
            [
                "coretemp_package_id_0.celsius 45",
                "coretemp_core_0.celsius 43",
                "coretemp_core_8.celsius 44",
                "nvme_composite.celsius 38.85",
                "nvme_composite_2.celsius 39.85",
                "nct6775_temp1.celsius 30.5",
            ]
        );
    }

    #[test]
    fn a_raspberry_pi_has_one_sensor_though_it_is_there_twice() {
        let metrics = told(&[
            ("hwmon/hwmon0/name", "cpu_thermal"),
            ("hwmon/hwmon0/temp1_input", "48312"),
            ("hwmon/hwmon1/name", "rpi_volt"),
            ("hwmon/hwmon1/in0_lcrit_alarm", "0"),
            ("thermal/thermal_zone0/type", "cpu-thermal"),
            ("thermal/thermal_zone0/temp", "48312"),
            ("thermal/cooling_device0/type", "gpio-fan"),
        ]);
        assert_eq!(metrics, [("cpu_thermal.celsius".into(), 48.312)]);
    }

    #[test]
    fn zones_without_a_chip_count() {
        let metrics = told(&[
            ("thermal/thermal_zone1/type", "gpu_thermal"),
            ("thermal/thermal_zone1/temp", "51000"),
            ("thermal/thermal_zone0/type", "soc.thermal"),
            ("thermal/thermal_zone0/temp", "50000"),
            ("thermal/thermal_zone2/type", "broken"),
            ("thermal/thermal_zone2/temp", "warm"),
        ]);
        let expected = [("soc_thermal.celsius".into(), 50.0), ("gpu_thermal.celsius".into(), 51.0)];
        assert_eq!(metrics, expected);
    }

    /// Two disks: the kernel has found the one in the second slot first.
    const DISKS: &[(&str, &str)] = &[
        ("hwmon/hwmon0/name", "nvme"),
        ("hwmon/hwmon0/temp1_input", "39850"),
        ("hwmon/hwmon0/temp1_label", "Composite"),
        ("hwmon/hwmon1/name", "nvme"),
        ("hwmon/hwmon1/temp1_input", "85850"),
        ("hwmon/hwmon1/temp1_label", "Composite"),
    ];

    fn link(machine: &tempfile::TempDir, chip: &str, device: &str) {
        let target = machine.path().join("devices").join(device);
        fs::create_dir_all(&target).unwrap();
        let link = machine.path().join("class/hwmon").join(chip).join("device");
        let _ = fs::remove_file(&link);
        std::os::unix::fs::symlink(target, link).unwrap();
    }

    fn two_disks() -> tempfile::TempDir {
        let machine = machine(DISKS);
        link(&machine, "hwmon0", "pci0000:00/0000:00:1d.0/0000:02:00.0/nvme/nvme0");
        link(&machine, "hwmon1", "pci0000:00/0000:00:1d.0/0000:01:00.0/nvme/nvme1");
        machine
    }

    fn shown(metrics: &[(String, f64)]) -> Vec<String> {
        metrics.iter().map(|(path, value)| format!("{path} {value}")).collect()
    }

    #[test]
    fn a_disk_took_the_path_of_another_one_that_gave_no_value() {
        for (input, value) in
            [("temp1_input", "-273150"), ("temp1_input", ""), ("temp1_fault", "1")]
        {
            let machine = two_disks();
            let hot = machine.path().join("class/hwmon/hwmon1");
            let cool = "nvme_composite_2.celsius 39.85";
            let mut sensors = Sensors::new(None);
            let both = shown(&sensors.collect(machine.path()));
            assert_eq!(both, ["nvme_composite.celsius 85.85", cool]);
            fs::write(hot.join(input), value).unwrap();
            assert_eq!(shown(&sensors.collect(machine.path())), [cool], "{input} {value}");
            assert_eq!(
                shown(&Sensors::new(None).collect(machine.path())),
                [cool],
                "after a restart"
            );
            fs::remove_dir_all(&hot).unwrap();
            assert_eq!(shown(&sensors.collect(machine.path())), [cool], "it is pulled out");
        }
    }

    #[test]
    fn a_path_belongs_to_a_device_whatever_the_kernel_numbers_it() {
        let first = shown(&Sensors::new(None).collect(two_disks().path()));
        let files: Vec<(&str, &str)> = vec![
            ("hwmon/hwmon3/name", "nvme"),
            ("hwmon/hwmon3/temp1_input", "85850"),
            ("hwmon/hwmon3/temp1_label", "Composite"),
            ("hwmon/hwmon7/name", "nvme"),
            ("hwmon/hwmon7/temp1_input", "39850"),
            ("hwmon/hwmon7/temp1_label", "Composite"),
        ];
        let other = machine(&files);
        link(&other, "hwmon3", "pci0000:00/0000:00:1d.0/0000:01:00.0/nvme/nvme0");
        link(&other, "hwmon7", "pci0000:00/0000:00:1d.0/0000:02:00.0/nvme/nvme1");
        assert_eq!(shown(&Sensors::new(None).collect(other.path())), first);
    }

    #[test]
    fn a_disk_that_is_gone_after_a_reboot_left_its_path_to_the_other_one() {
        let folder = tempfile::tempdir().unwrap();
        let file = Some(folder.path().join("sensors"));
        let machine = two_disks();
        let hot = ["nvme_composite.celsius 85.85"];
        let cool = ["nvme_composite_2.celsius 39.85"];
        let both = shown(&Sensors::new(file.clone()).collect(machine.path()));
        assert_eq!(both, [hot, cool].concat());
        fs::remove_dir_all(machine.path().join("class/hwmon/hwmon1")).unwrap();
        assert_eq!(shown(&Sensors::new(file.clone()).collect(machine.path())), cool);
        // What is spoilt is begun anew.
        fs::write(file.as_ref().unwrap(), "{").unwrap();
        let begun = shown(&Sensors::new(file).collect(machine.path()));
        assert_eq!(begun, ["nvme_composite.celsius 39.85"]);
        let nowhere = Some("/nonexistent/sensors".into());
        assert_eq!(shown(&Sensors::new(nowhere).collect(machine.path())), begun);
    }

    #[test]
    fn what_is_plugged_in_again_has_its_path_again() {
        let files = [("hwmon/hwmon2/name", "kraken2"), ("hwmon/hwmon2/temp1_input", "31000")];
        let machine = machine(&files);
        let port = "pci0000:00/0000:00:14.0/usb1/1-2/1-2:1.0/0003:1E71:2007";
        link(&machine, "hwmon2", &format!("{port}.0004"));
        let mut sensors = Sensors::new(None);
        let first = sensors.collect(machine.path());
        fs::rename(
            machine.path().join("class/hwmon/hwmon2"),
            machine.path().join("class/hwmon/hwmon5"),
        )
        .unwrap();
        link(&machine, "hwmon5", &format!("{port}.0005"));
        assert_eq!(sensors.collect(machine.path()), first);
        assert_eq!(first, [("kraken2.celsius".into(), 31.0)]);
    }

    #[test]
    fn a_host_of_scsi_that_was_found_later_left_the_path_of_a_dead_disk_to_another_one() {
        let files = [
            ("hwmon/hwmon0/name", "drivetemp"),
            ("hwmon/hwmon0/temp1_input", "61000"),
            ("hwmon/hwmon1/name", "drivetemp"),
            ("hwmon/hwmon1/temp1_input", "30000"),
        ];
        let machine = machine(&files);
        let disk = |port: u32, host: u32| {
            format!("pci0000:00/0000:00:17.0/ata{port}/host{host}/target{host}:0:0/{host}:0:0:0")
        };
        link(&machine, "hwmon0", &disk(1, 0));
        link(&machine, "hwmon1", &disk(2, 1));
        let folder = tempfile::tempdir().unwrap();
        let file = Some(folder.path().join("sensors"));
        let first = shown(&Sensors::new(file.clone()).collect(machine.path()));
        assert_eq!(first, ["drivetemp.celsius 61", "drivetemp_2.celsius 30"]);
        // A disk at USB came before them, and the first one is dead.
        fs::remove_dir_all(machine.path().join("class/hwmon/hwmon0")).unwrap();
        link(&machine, "hwmon1", &disk(2, 2));
        let second = shown(&Sensors::new(file).collect(machine.path()));
        assert_eq!(second, ["drivetemp_2.celsius 30"]);
    }

    #[test]
    fn devices_that_only_their_numbers_tell_apart_were_one() {
        for (place, kept) in [
            (
                "/devices/pci0000:00/0000:01:00.0/nvme/nvme1",
                "/devices/pci0000:00/0000:01:00.0/nvme/nvme",
            ),
            (
                "/devices/platform/27bcc0000.nvme/nvme/nvme0",
                "/devices/platform/27bcc0000.nvme/nvme/nvme",
            ),
            ("/devices/virtual/nvme-fabrics/ctl/nvme1", "/devices/virtual/nvme-fabrics/ctl/nvme1"),
            ("/devices/virtual/nvme/nvme1", "/devices/virtual/nvme/nvme1"),
            ("/devices/0000:02:00.0/ieee80211/phy3", "/devices/0000:02:00.0/ieee80211/phy"),
            (
                "/devices/0000:00:17.0/ata3/host2/target2:1:0/2:1:0:0",
                "/devices/0000:00:17.0/ata3/1:0:0",
            ),
            (
                "/devices/0000:02:00.0/host2/target2:1:0/2:1:0:0",
                "/devices/0000:02:00.0/host2/target2:1:0/2:1:0:0",
            ),
        ] {
            assert_eq!(without_instances(place), kept);
        }
    }

    #[test]
    fn more_sensors_than_are_told_are_logged() {
        let inputs: Vec<String> = (1..=40).map(|n| format!("hwmon/hwmon0/temp{n}_input")).collect();
        let mut files = vec![("hwmon/hwmon0/name", "many")];
        files.extend(inputs.iter().map(|input| (input.as_str(), "30000")));
        let machine = machine(&files);
        let mut sensors = Sensors::new(None);
        assert_eq!(sensors.collect(machine.path()).len(), MAX_SENSORS);
        assert_eq!(sensors.left_out.len(), 40 - MAX_SENSORS);
    }

    #[test]
    fn ports_are_in_the_order_of_their_numbers() {
        let mut ports = ["ata10/host9", "ata2/host1", "ata2/host0", "atb"];
        ports.sort_by_key(|port| natural_order(port));
        assert_eq!(ports, ["ata2/host0", "ata2/host1", "ata10/host9", "atb"]);
    }

    #[test]
    fn a_virtual_machine_has_none() {
        assert_eq!(told(&[]), []);
    }
}
