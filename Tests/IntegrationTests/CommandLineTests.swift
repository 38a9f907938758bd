import Foundation
import Glibc
import Testing

/// Everything here starts the built program. One after the other, for the machine is small and times are measured.
@Suite(.serialized) struct IntegrationTests {}

/// Runs tproxy to its end.
private func tproxy(_ arguments: [String], environment: [String: String] = [:]) throws -> (status: Int32, text: String)
{
    try Subprocess.run([Repository.binary] + arguments, environment: environment, within: patience)
}

extension IntegrationTests {
    @Suite struct CommandLine {
        @Test("--help and --version are answered with status 0")
        func answers() throws {
            let help = try tproxy(["--help"])
            #expect(help.status == 0)
            for option in [
                "--router", "-b, --bind", "--verdict-timeout", "-t, --timeout", "--access-log", "-h, --help",
            ] {
                #expect(help.text.contains(option), "\(option)")
            }
            let version = try tproxy(["--version"])
            #expect(version.status == 0 && version.text.contains(/^tproxy \d+\.\d+\.\d+$/))
        }

        @Test(
            "wrong options end with status 2 and one line that names them, before anything is bound",
            arguments: [
                (["-w", "0", "--router", "x"], "-w/--workers '0': expected a whole number, 1 to 512"),
                (["-w", "-1", "--router", "x"], "-w/--workers '-1': expected a whole number, 1 to 512"),
                (["-b", "99999", "--router", "x"], "-b/--bind '99999': expected"),
                (["-b", "tls://:1", "--router", "x"], "-b/--bind 'tls://:1': tls:// needs --ssl-certfile"),
                (["--router", "python3 'route.py"], "--router 'python3 'route.py': the quote ' is not closed"),
                (["--router", ""], "--router '': it names no program"),
                (["--router", "unix:"], "expected a path"),
                ([], "--router or a script is needed"),
                (["--nonsense"], "Unknown option '--nonsense'"),
                (["--router", "x", "y.py"], "--router and a script are two routers"),
                (["--ssl-keyfile=x", "--router", "x"], "--ssl-keyfile needs --ssl-certfile"),
                (["nowhere/route.py"], "SCRIPT 'nowhere/route.py': no such file"),
                (["a b"], "SCRIPT 'a b': no such file, and no name of a Python module"),
                (["/tmp"], "SCRIPT '/tmp': it is a folder"),
            ])
        func wrongOptions(arguments: [String], message: String) throws {
            let result = try tproxy(arguments)
            #expect(result.status == 2)
            #expect(result.text.hasPrefix("tproxy: ") && result.text.contains(message), "\(result.text)")
            #expect(!result.text.contains("\n"))
        }

        @Test("another kind of file is refused with the command that would run it")
        func otherFiles() throws {
            let folder = Folder()
            let script = try tproxy([folder.file("route.js")])
            #expect(script.status == 2 && script.text.contains("--router 'node \(folder.path)/route.js'"))
            let program = try tproxy([folder.file("route")])
            #expect(program.status == 2 && program.text.contains("--router '\(folder.path)/route'"))
        }

        @Test("the environment stands in for options and is named in errors")
        func environment() throws {
            let wrong = try tproxy(["--router", "x"], environment: ["TPROXY_WORKERS": "many"])
            #expect(wrong.status == 2 && wrong.text.contains("TPROXY_WORKERS 'many': expected"))
        }

        @Test(
            "a router that cannot be started ends tproxy with status 3 and the reason",
            arguments: [
                ("/nowhere/router", "No such file"), ("false", "router"),
            ])
        func bootFailure(router: String, reason: String) throws {
            let result = try tproxy(["--router", router, "-b", "127.0.0.1:0"])
            #expect(result.status == 3, "\(result.text)")
            #expect(result.text.contains(reason), "\(result.text)")
        }

        @Test("an address in use is an error within 10 seconds, and tproxy says which")
        func addressInUse() throws {
            let origin = try Origin()
            let time = try seconds { () throws in
                let result = try tproxy(["--router", "true", "-b", origin.address])
                #expect(result.status != 0 && result.text.contains(origin.address), "\(result.text)")
                #expect(result.text.contains("in use"), "\(result.text)")
            }
            #expect(time < 10)
        }

        @Test("a log that cannot be opened is an error at once")
        func logs() throws {
            let result = try tproxy(["--router", "true", "-b", "127.0.0.1:0", "--log-file", "/nowhere/log"])
            #expect(result.status != 0 && result.text.contains("/nowhere/log"), "\(result.text)")
        }
    }
}
