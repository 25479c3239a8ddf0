//! Temperatures, from the kernel's hwmon and thermal classes in sysfs
//! (Documentation/hwmon/sysfs-interface.rst, Documentation/driver-api/thermal/sysfs-api.rst).

use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

use super::metric_name::unique_segments;
use super::probe::TimedProbe;

/// The most sensors.
const MAX_SENSORS: usize = 32;
/// In thousandths of a degree; a sensor that is broken or not connected gives a value beyond.
const PLAUSIBLE: std::ops::RangeInclusive<i64> = -60_000..=200_000;

/// A chip with sensors, or a thermal zone.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Chip {
    folder: PathBuf,
    zone: bool,
}

impl fmt::Display for Chip {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        self.folder.display().fmt(f)
    }
}

/// The name of a chip, and the names and degrees Celsius of its sensors.
struct ChipReading {
    chip: String,
    sensors: Vec<(String, f64)>,
}

/// Reads the sensors, and waits for none that hangs: some sit behind slow buses, and the
/// controllers of dying disks.
pub struct Sensors(TimedProbe<Chip, ChipReading>);

impl Sensors {
    /// Nothing was read yet.
    pub fn new() -> Sensors {
        Sensors(TimedProbe::new("the sensor", read_chip))
    }

    /// The metrics of all sensors that can be read.
    pub fn collect(&mut self, sys: &Path) -> Vec<(String, f64)> {
        let chips = chips(sys);
        let readings = self.0.read_all(&chips);
        let read: Vec<(&Chip, ChipReading)> = chips
            .iter()
            .zip(readings)
            .filter_map(|(chip, reading)| Some((chip, reading?)))
            .collect();
        // Most zones are there a second time, as chips of the same name.
        let chip_names: Vec<String> = read
            .iter()
            .filter(|(chip, _)| !chip.zone)
            .map(|(_, reading)| reading.chip.clone())
            .collect();
        let is_duplicate = |chip: &Chip, name: &str| {
            chip.zone && chip_names.iter().any(|known| same_name(known, name))
        };
        let sensors: Vec<(String, f64)> = read
            .into_iter()
            .filter(|(chip, reading)| !is_duplicate(chip, &reading.chip))
            .flat_map(|(_, reading)| reading.sensors)
            .collect();
        let names = unique_segments(sensors.iter().map(|(name, _)| name.as_str()));
        let metric = |(name, (_, value))| (format!("{name}.celsius"), value);
        names.into_iter().zip(sensors).map(metric).take(MAX_SENSORS).collect()
    }
}

/// `cpu-thermal` the zone is `cpu_thermal` the chip: hwmon does not allow dashes.
fn same_name(one: &str, other: &str) -> bool {
    one.replace('-', "_") == other.replace('-', "_")
}

/// All chips, then all zones, each in the order of their numbers.
fn chips(sys: &Path) -> Vec<Chip> {
    let all = |class: &str, prefix: &str| {
        let zone = class == "thermal";
        let mut found: Vec<(u32, PathBuf)> = numbered(&sys.join("class").join(class), prefix, "");
        found.sort();
        found.into_iter().map(move |(_, folder)| Chip { folder, zone })
    };
    all("hwmon", "hwmon").chain(all("thermal", "thermal_zone")).collect()
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

fn read_chip(chip: &Chip) -> Option<ChipReading> {
    if chip.zone {
        let name = read_word(&chip.folder.join("type"))?;
        let sensors = vec![(name.clone(), celsius(&chip.folder.join("temp"))?)];
        return Some(ChipReading { chip: name, sensors });
    }
    let name = read_word(&chip.folder.join("name"))?;
    let mut inputs = numbered(&chip.folder, "temp", "_input");
    // Until Linux 3.15 the files of some chips lay one folder below.
    if inputs.is_empty() {
        inputs = numbered(&chip.folder.join("device"), "temp", "_input");
    }
    inputs.sort();
    let alone = inputs.len() == 1;
    let sensors = inputs.into_iter().filter_map(|(number, input)| {
        let label = read_word(&input.with_file_name(format!("temp{number}_label")));
        let sensor = match label {
            Some(label) => format!("{name}_{}", label.to_lowercase()),
            None if alone => name.clone(),
            None => format!("{name}_temp{number}"),
        };
        Some((sensor, celsius(&input)?))
    });
    Some(ChipReading { sensors: sensors.collect(), chip: name })
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
        Sensors::new().collect(machine(files).path())
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

    #[test]
    fn a_virtual_machine_has_none() {
        assert_eq!(told(&[]), []);
    }
}
