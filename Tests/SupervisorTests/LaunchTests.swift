import Addressing
import Config
import Linux
import Testing

@testable import Supervisor

@Suite("What an arbiter is started with")
struct LaunchTests {
    static func launch(_ environment: [String: String]) throws -> Launch {
        try Launch(Invocation(arguments: ["tproxy"], environment: []), startedBy: nil, environment: environment)
    }

    @Test("sockets of a service manager stand in for the default, and are added to what was given")
    func activation() throws {
        let launch = try Self.launch(["LISTEN_FDS": "2", "LISTEN_PID": String(Process.pid)])
        var settings = settings(workers: 1)
        #expect(launch.binds(settings) == [.descriptor(3), .descriptor(4)])
        settings.hasExplicitBinds = true
        #expect(launch.binds(settings) == [.standard, .descriptor(3), .descriptor(4)])
        settings.binds = [.descriptor(4)]
        #expect(launch.binds(settings) == [.descriptor(4), .descriptor(3)])
    }

    @Test("those of somebody else are not ours, and nonsense is refused")
    func others() throws {
        let settings = settings(workers: 1)
        #expect(try Self.launch(["LISTEN_FDS": "2", "LISTEN_PID": "1"]).binds(settings) == [.standard])
        #expect(try Self.launch([:]).binds(settings) == [.standard])
        #expect(throws: OptionError.self) {
            try Self.launch(["LISTEN_FDS": "many", "LISTEN_PID": String(Process.pid)])
        }
    }
}
