import Addressing
import Config
import Testing

@Suite("Listeners that a service manager passes") struct PassedListenersTests {
    private func binds(
        _ explicit: [String] = [], _ environment: [String: String], pid: Int32 = 42
    ) throws(OptionError) -> [String] {
        var settings = Settings(name: "x", router: RouterSpec(arguments: ["r"], text: "r"))
        if !explicit.isEmpty {
            settings.binds = explicit.compactMap { BindAddress($0) }
            settings.hasExplicitBinds = true
        }
        return try settings.binds(environment: environment, pid: pid).map(\.description)
    }

    @Test("they replace the default, and are added to what somebody gave")
    func rule() throws {
        let passed = ["LISTEN_PID": "42", "LISTEN_FDS": "2"]
        #expect(try binds([], passed) == ["fd://3", "fd://4"])
        #expect(try binds(["5000"], passed) == ["127.0.0.1:5000", "fd://3", "fd://4"])
        #expect(try binds(["fd://4"], passed) == ["fd://4", "fd://3"])
    }

    @Test(
        "variables that are absent or meant for another process change nothing",
        arguments: [
            [:], ["LISTEN_FDS": "1"], ["LISTEN_PID": "42"], ["LISTEN_PID": "41", "LISTEN_FDS": "1"],
            ["LISTEN_PID": "", "LISTEN_FDS": "1"], ["LISTEN_PID": "x", "LISTEN_FDS": "y"],
            ["LISTEN_PID": "42", "LISTEN_FDS": "0"],
        ] as [[String: String]])
    func foreign(environment: [String: String]) throws {
        #expect(try binds([], environment) == ["127.0.0.1:5000"])
        #expect(try binds(["1"], environment) == ["127.0.0.1:1"])
    }

    @Test(
        "a count that cannot be is refused by the variable's name",
        arguments: ["", "-1", "65", "x", "99999999999999999999"])
    func refused(count: String) {
        let error = #expect(throws: OptionError.self) {
            try binds([], ["LISTEN_PID": "42", "LISTEN_FDS": count])
        }
        #expect(error?.description == "LISTEN_FDS '\(count)': expected a whole number, 0 to 64")
        #expect(throws: OptionError.self) { try binds(["1", "2"], ["LISTEN_PID": "42", "LISTEN_FDS": "63"]) }
    }
}
